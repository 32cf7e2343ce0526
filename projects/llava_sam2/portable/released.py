"""Weights of a network in files of the released layout: filled in strictly, and written one tensor at a time."""

import json
import os
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from .key_maps import is_lora, is_token_rows, own_to_released, released_table
from .pickled import CheckpointError
from .stored import INDEX, Stored, open_tensors
from .video_memory import expected_video_memory

EMBEDDING, HEAD = 'language_model.model.embed_tokens.weight', 'language_model.lm_head.weight'
_HEAD_OF = HEAD.removesuffix('weight')
_TYPE_NAMES = {torch.float32: 'F32', torch.bfloat16: 'BF16', torch.float16: 'F16'}


def fill(network: nn.Module, source: str | Path, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """Give a network on the meta device its weights from files; see :func:`fill_from`.

    Args:
        source: file or folder of safetensors under the released names.
    """
    return fill_from(network, _by_file(open_tensors(source).tensors), dtype, device, source)


@torch.no_grad()
def fill_from(
    network: nn.Module, stored: 'dict[str, Stored | Planned]', dtype: torch.dtype, device: torch.device,
    source: str | Path,
) -> dict[str, torch.Tensor]:
    """Give a network on the meta device its weights, strictly and without holding two copies of them.

    Args:
        network: a ``Sa2VANetwork``; its parameters become ``dtype`` on ``device``. Its buffers
            are float32: in bf16 the phases of SAM 2's positional encoding are off by up to 0.14 rad.
        stored: tensors by released name, in the order in which to read them; empty afterwards.
        source: where they come from, for messages.

    Returns:
        SAM 2's video memory by released name, on the CPU as it is stored; empty when there is none.

    Raises:
        CheckpointError: a tensor is missing, not expected or of another shape.
    """
    expected = {name: planned.shape for name, planned in plan_release(network).items()}
    expected |= both_sides_of_tied(network, expected, stored)
    width = network.grounding_encoder.config.mask_decoder_config.hidden_size
    memory = expected_video_memory({name: tensor.shape for name, tensor in stored.items()}, width)
    check_shapes(source, expected | memory, {name: tensor.shape for name, tensor in stored.items()})
    own, table = {}, released_table({name: tensor.shape for name, tensor in network.state_dict().items()})
    carried = {}
    for name in list(stored):
        tensor = stored.pop(name).tensor()  # a file whose last tensor is gone is no longer mapped
        if name in memory:
            carried[name] = tensor.clone()
        for place in table.get(name, ()):
            if place.own not in own:
                own[place.own] = _materialise(network, place.own, dtype, device)
            own[place.own][place.own_rows].copy_(tensor[place.rows])
    # Frequencies that are in no file. A buffer of another kind would be left on the meta device, which is no result.
    rotary = network.language_model.model.rotary_emb
    network.language_model.model.rotary_emb = Qwen2RotaryEmbedding(rotary.config, device)
    _tie(network, source)
    left = [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]
    if left:
        raise RuntimeError(f'{left[0]} is in no file and nothing computes it')
    return carried


def both_sides_of_tied(network: nn.Module, expected: Mapping[str, tuple], found: Container[str]) -> dict[str, tuple]:
    """The head, where it is the embedding and the files hold it all the same: released name to shape."""
    tied = network.config.llm_config.tie_word_embeddings
    return {HEAD: expected[EMBEDDING]} if tied and HEAD in found else {}


def _by_file(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    return {name: stored[name] for name in sorted(stored, key=lambda name: (stored[name].file, name))}


def check_shapes(source: str | Path, expected: Mapping[str, tuple], found: Mapping[str, tuple]) -> None:
    """Compare names and shapes strictly.

    Raises:
        CheckpointError: a tensor of ``found`` is missing, not expected or of another shape.
    """
    wrong = {
        'are missing': sorted(expected.keys() - found.keys()),
        'are not expected': sorted(found.keys() - expected.keys()),
        'have another shape': [
            f'{name} {tuple(found[name])}, expected {tuple(expected[name])}'
            for name in sorted(expected.keys() & found.keys()) if tuple(found[name]) != tuple(expected[name])
        ],
    }
    for what, names in wrong.items():
        if names:
            shown = ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
            raise CheckpointError(
                f'{source} does not fit the model: {len(names)} tensors {what}: {shown}. '
                'Check that config.json belongs to these weights, and copy or download the folder again.'
            )


def _materialise(network: nn.Module, name: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    path, _, last = name.rpartition('.')
    module = network.get_submodule(path)
    old = getattr(module, last)
    if isinstance(old, nn.Parameter):
        tensor = torch.empty_like(old, dtype=dtype, device=device)
        setattr(module, last, nn.Parameter(tensor, old.requires_grad))
    else:
        setattr(module, last, torch.empty_like(old, dtype=torch.float32, device=device))
    return getattr(module, last)


def _tie(network: nn.Module, source: str | Path) -> None:
    """Make embedding and head one tensor again where the config says so; the files may hold both."""
    model = network.language_model
    if model.config.tie_word_embeddings:
        head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
        if not head.is_meta and not torch.equal(head, embedding):
            raise CheckpointError(
                f'{source}: config.json says tie_word_embeddings, but lm_head and embed_tokens differ; it is of other '
                'weights'
            )
        model.tie_weights()


class Planned(NamedTuple):
    """A tensor of a file to be written: what it will be, and how to get it when its turn comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    tensor: Callable[[], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def plan_release(
    network: nn.Module,
    dtype: torch.dtype | None = None,
    carried: Mapping[str, torch.Tensor] | None = None,
    tensor_of: Callable[[str], torch.Tensor] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Planned]:
    """What a network is under the released names, without making any of it yet.

    Args:
        network: on any device, meta included.
        dtype: of the weights; None keeps each one's own. Buffers are float32 always, see :func:`fill`.
        carried: SAM 2's video memory, written as it is.
        tensor_of: gives a tensor of the network by name in place of its ``state_dict()``; export merges LoRA there.
        state: in place of ``state_dict()``, with its names and shapes.

    Raises:
        ValueError: ``state`` has other names or shapes.
    """
    state = network.state_dict() if state is None else _checked(state, network)
    if network.config.llm_config.tie_word_embeddings:  # one matrix, written once
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_HEAD_OF)}
    buffers = {name for name, _ in network.named_buffers()}
    tensor_of = tensor_of or state.__getitem__
    plan = {}
    for name, pieces in own_to_released({own: tensor.shape for own, tensor in state.items()}).items():
        own = state[pieces[0].own]
        kind = torch.float32 if pieces[0].own in buffers else dtype or own.dtype

        def gathered(pieces=pieces, kind=kind) -> torch.Tensor:
            rows = [tensor_of(piece.own)[piece.own_rows].to('cpu', kind) for piece in pieces]
            return torch.cat(rows) if len(rows) > 1 else rows[0]

        plan[name] = Planned((pieces[-1].rows.stop, *own.shape[1:]), kind, gathered)
    for name, tensor in (carried or {}).items():
        plan[name] = Planned(tuple(tensor.shape), tensor.dtype, tensor.cpu)
    return plan


def _checked(state: Mapping[str, torch.Tensor], network: nn.Module) -> Mapping[str, torch.Tensor]:
    own = network.state_dict()
    if network.config.llm_config.tie_word_embeddings:  # some leave the head out, which is the embedding
        state = {name: own[name] for name in own if name.startswith(_HEAD_OF)} | dict(state)
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(f'state_dict is of another model: {wrong[0]} is missing, not expected or of another shape. '
                         "It must have the names of model.state_dict(), and LoRA merged")
    return state


def refuse_unmerged(network: nn.Module) -> None:
    """Raise a ValueError when PEFT has weights beside the network's own: they would be left out of the files."""
    beside = [name for name, _ in network.named_parameters() if is_lora(name) or is_token_rows(name)]
    if beside:
        raise ValueError(f'{beside[0]} is not merged: call merge_and_unload() of the PEFT model first, then save')


@torch.no_grad()
def write_tensors(folder: Path, plan: Mapping[str, Planned], max_shard_size: int | str = '5GB',
                  written: Callable[[int], None] | None = None) -> None:
    """Write ``model.safetensors``, or shards of at most ``max_shard_size`` with their index, into ``folder``.

    One tensor is in memory at a time, while the safetensors library's own writer wants the bytes of a whole file.
    Weights that are in the folder already are replaced. ``written`` is called with the bytes of each tensor.
    """
    split = split_state_dict_into_shards_factory(
        dict(plan), get_storage_size=lambda planned: planned.num_bytes, max_shard_size=max_shard_size,
        filename_pattern='model{suffix}.safetensors',
    )
    for old in folder.glob('model*.safetensors*'):
        old.unlink()
    for file, names in split.filename_to_tensors.items():
        _write_file(folder / file, {name: plan[name] for name in names}, written)
    if split.is_sharded:
        index = dict(metadata=split.metadata, weight_map=dict(sorted(split.tensor_to_filename.items())))
        (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n')


def _write_file(file: Path, plan: Mapping[str, Planned], written: Callable[[int], None] | None) -> None:
    # Wide types first, so that every tensor begins at a multiple of its item size.
    order = sorted(plan, key=lambda name: (-plan[name].dtype.itemsize, name))
    header: dict[str, dict] = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name in order:
        begin, end = end, end + plan[name].num_bytes
        header[name] = dict(dtype=_TYPE_NAMES[plan[name].dtype], shape=plan[name].shape, data_offsets=(begin, end))
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(file, 'wb') as out:
        out.write(len(text).to_bytes(8, 'little') + text)
        for name in order:
            tensor = plan[name].tensor()
            if (tuple(tensor.shape), tensor.dtype) != plan[name][:2]:
                raise AssertionError(f'{name} is {tensor.dtype} {tuple(tensor.shape)}, planned {plan[name][:2]}')
            out.write(tensor.contiguous().flatten().view(torch.uint8).numpy())
            if written is not None:
                written(plan[name].num_bytes)
        out.flush()
        os.fsync(out.fileno())
