"""Weights in: strict loading of released folders and of official training checkpoints in safetensors form.

Nothing is loaded silently in part. Within the named parts every tensor must be found with its shape and none may be
left over, except SAM 2's video memory, which is kept for export.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .key_maps import CARRIED_PREFIXES, is_carried, released_table, training_to_released

#: Parts of the model and the released names that belong to each.
PARTS = {
    'vision_model': 'vision_model.',
    'mlp1': 'mlp1.',
    'language_model': 'language_model.',
    'text_hidden_fcs': 'text_hidden_fcs.',
    'grounding_encoder': 'grounding_encoder.',
}


@dataclass
class LoadReport:
    """What was found, per part; printed after loading.

    Attributes:
        source: folder or file.
        found: part -> number of tensors.
        carried: number of tensors that are kept for export only.
        fingerprint: of all of them, see :func:`fingerprint`.
    """

    source: str
    found: dict[str, int] = field(default_factory=dict)
    carried: int = 0
    fingerprint: str = ''

    def __str__(self) -> str:
        parts = ', '.join(f'{part} {count}' for part, count in self.found.items())
        return f'loaded {sum(self.found.values())} tensors from {self.source} ({parts}; carried through {self.carried})'


class CheckpointError(ValueError):
    """A checkpoint that does not fit; the message names the file, the tensors and what to do."""


def open_tensors(source: str | Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Tensors of a safetensors file or of a folder with single or sharded safetensors, read lazily one by one.

    Returns:
        Name as stored to a function that reads the tensor.

    Raises:
        CheckpointError: when a file is missing, truncated or not safetensors.
    """
    source = Path(source)
    if source.is_file():
        files = [source]
    elif (index := source / 'model.safetensors.index.json').is_file():
        files = sorted({source / name for name in json.loads(index.read_text())['weight_map'].values()})
    elif (source / 'model.safetensors').is_file():
        files = [source / 'model.safetensors']
    else:
        raise CheckpointError(
            f'no weights at {source}: expected a .safetensors file, or a folder with model.safetensors or '
            'model.safetensors.index.json'
        )
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    for file in files:
        if not file.is_file():
            raise CheckpointError(f'{file} is missing although {source} lists it; download the folder again')
        try:
            handle = safe_open(file, framework='pt')
            names = handle.keys()
        except SafetensorError as error:
            raise CheckpointError(f'{file} is not a whole safetensors file ({error}); download it again') from error
        for name in names:
            if name in readers:
                raise CheckpointError(f'{source} holds {name} twice')
            readers[name] = lambda handle=handle, name=name: handle.get_tensor(name)
    return readers


@torch.no_grad()
def load_pretrained(network: nn.Module, source: str | Path, parts: Sequence[str] = tuple(PARTS)) -> LoadReport:
    """Load weights strictly into a network, before LoRA or after.

    Args:
        network: a :class:`~llava_sam2.network.Sa2VANetwork`.
        source: folder or file for :func:`open_tensors`, under released or official training names.
        parts: keys of :data:`PARTS`; tensors of other parts are not looked at.

    Returns:
        The report. SAM 2's memory tensors, if any, are kept as ``network.carried``.

    Raises:
        CheckpointError: on a missing or unexpected tensor or another shape, before anything is changed.
    """
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f'parts {sorted(unknown)} are unknown, use some of {list(PARTS)}')
    prefixes = {PARTS[part]: part for part in parts}
    state = network.state_dict()
    table = {
        name: places
        for name, places in released_table({own: tensor.shape for own, tensor in state.items()}).items()
        if name.startswith(tuple(prefixes))
    }
    stored = {training_to_released(name): read for name, read in open_tensors(source).items()}
    _refuse(source, 'belong to no part', [name for name in stored if not name.startswith(tuple(PARTS.values()))])
    readers = {name: read for name, read in stored.items() if name.startswith(tuple(prefixes))}
    carried = {name: read for name, read in readers.items() if is_carried(name)}
    _refuse(source, 'are missing', [name for name in table if name not in readers])
    _refuse(source, 'are not expected', [name for name in readers if name not in table and name not in carried])
    groups = {prefix for prefix in CARRIED_PREFIXES if any(name.startswith(prefix) for name in carried)}
    if carried and groups != set(CARRIED_PREFIXES):
        _refuse(source, 'of SAM 2\'s video memory are missing', sorted(set(CARRIED_PREFIXES) - groups))
    tensors = {name: readers[name]() for name in table}
    wrong = []
    for name, places in table.items():
        shape = list(state[places[0].own].shape)
        shape[0] = max(place.rows.stop for place in places)
        if list(tensors[name].shape) != shape:
            wrong.append(f'{name} {tuple(tensors[name].shape)}, expected {tuple(shape)}')
    _refuse(source, 'have another shape', wrong)
    for name, places in table.items():
        for place in places:
            state[place.own][place.own_rows].copy_(tensors[name][place.rows])
    memory = {name: read() for name, read in carried.items()}
    if 'grounding_encoder' in parts:
        network.carried = memory
    report = LoadReport(str(source), carried=len(carried), fingerprint=fingerprint(tensors | memory))
    for name in table:
        part = next(part for prefix, part in prefixes.items() if name.startswith(prefix))
        report.found[part] = report.found.get(part, 0) + 1
    return report


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 (hex) over the sorted names, the shapes, the types and the bytes of tensors on the CPU."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}\n'.encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def released_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors of a network under the released names: LoRA merged in fp32, SAM 2's carried memory included."""
    state = network.state_dict()
    for name, module in network.named_modules():
        if isinstance(module, LoraLayer):
            own = f'{name}.base_layer.weight'
            delta = sum(module.get_delta_weight(adapter).float() for adapter in module.active_adapters)
            state[own] = (state[own].float() + delta).to(state[own].dtype)
    released = {}
    for name, places in released_table({own: tensor.shape for own, tensor in state.items()}).items():
        # Several own tensors are either rows of one released tensor (q, k, v) or copies of it (a shared buffer).
        by_rows = {place.rows.start: state[place.own][place.own_rows] for place in places}
        released[name] = torch.cat([by_rows[start] for start in sorted(by_rows)]).contiguous()
    return released | dict(getattr(network, 'carried', {}))


def save_released(network: nn.Module, folder: str | Path) -> None:
    """Write config.json and model.safetensors under the released names into ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    network.config.save_pretrained(folder)
    state = {name: tensor.detach().cpu().clone() for name, tensor in released_state(network).items()}
    save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})


def _refuse(source: str | Path, what: str, names: list[str]) -> None:
    if names:
        shown = ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
        raise CheckpointError(
            f'{source} does not fit the model: {len(names)} tensors {what}: {shown}. '
            'Check that the configured sizes are those of the checkpoint.'
        )
