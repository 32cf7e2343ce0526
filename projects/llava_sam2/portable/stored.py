"""Tensors on disk, whatever kind of file holds them: names and shapes at once, contents one by one when asked for."""

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .pickled import CheckpointError, read_pickled

INDEX, SINGLE = 'model.safetensors.index.json', 'model.safetensors'
#: The trained tensors of a checkpoint folder of ours, and what else is known of it.
TRAINABLES, STATE = 'trainables.safetensors', 'state.json'
_FLOATS = dict(F64=torch.float64, F32=torch.float32, F16=torch.float16, BF16=torch.bfloat16)


@dataclass(frozen=True)
class Stored:
    """One tensor on disk.

    Attributes:
        file: where it lies; for a tensor put together from several, the file that decides it.
        name: as it is called there.
        shape: of it.
        floating: whether it is a floating-point tensor, as all weights here are.
        tensor: gives it, on the CPU.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    floating: bool
    tensor: Callable[[], torch.Tensor]


@dataclass
class TensorFile:
    """The tensors of one checkpoint, and what it says of the run that wrote it.

    Attributes:
        path: the file or folder.
        tensors: name as stored -> tensor.
        files: what was read.
        config: text of the training config; empty if there is none.
        base: fingerprint of the weights that the run started from, or None.
    """

    path: Path
    tensors: dict[str, Stored] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    config: str = ''
    base: str | None = None


def open_tensors(path: str | Path) -> TensorFile:
    """Open weights: a safetensors file, a folder of them (one or sharded), a ``.pth`` file, or a checkpoint of ours.

    Raises:
        CheckpointError: nothing there, a file is missing, damaged, no checkpoint, or asks for a call.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise CheckpointError(f'no weights at {path}: there is no such file or folder')
    if path.suffix == '.safetensors':
        return _open_safetensors(path, [path])
    return _open_pickled(path)


def _open_folder(path: Path) -> TensorFile:
    if (path / TRAINABLES).is_file():
        found = _open_safetensors(path, [path / TRAINABLES])
        run = _read_json(path / STATE).get('run') or {}
        found.config, found.base = str(run.get('config', '')), run.get('weights')
        return found
    if (path / INDEX).is_file():
        return _open_sharded(path)
    if (path / SINGLE).is_file():
        return _open_safetensors(path, [path / SINGLE])
    if any(path.glob('*_model_states.pt')):
        raise CheckpointError(
            f'no plain weights in {path}: it has files of DeepSpeed only, which its own unpickling would have to read. '
            'Convert it first, with `xtuner convert pth_to_hf` or the zero_to_fp32.py beside it'
        )
    raise CheckpointError(
        f'no weights at {path}: expected a .safetensors or .pth file, or a folder with {SINGLE}, {INDEX} or '
        f'{TRAINABLES}'
    )


def _open_sharded(path: Path) -> TensorFile:
    index = path / INDEX
    weight_map = _read_json(index).get('weight_map')
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f'{index} has no weight_map from tensors to files; download it again')
    shards = sorted(set(weight_map.values()))
    outside = [name for name in shards if Path(name).name != name]
    if outside:
        raise CheckpointError(f'{index} names {outside[0]}, which is not a file of its own folder; download it again')
    found = _open_safetensors(path, [path / name for name in shards])
    for name, shard in weight_map.items():
        if name not in found.tensors or found.tensors[name].file.name != shard:
            raise CheckpointError(f'{index} says that {name} is in {shard}, but it is not; download both again')
    return found


def _open_safetensors(path: Path, files: list[Path]) -> TensorFile:
    found = TensorFile(path, files=files)
    for file in files:
        if not file.is_file():
            raise CheckpointError(f'{file} is missing although {path} lists it; download the folder again')
        try:
            handle = safe_open(file, framework='pt')
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f'{file} is not a whole safetensors file ({error}); download it again') from error
        for name in handle.keys():  # noqa: SIM118 (not iterable itself)
            if name in found.tensors:
                raise CheckpointError(f'{path} holds {name} twice, in {found.tensors[name].file.name} and {file.name}')
            entry = handle.get_slice(name)
            found.tensors[name] = Stored(
                file, name, tuple(entry.get_shape()), entry.get_dtype() in _FLOATS,
                partial(handle.get_tensor, name),
            )
    return found


def _open_pickled(path: Path) -> TensorFile:
    content = read_pickled(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path} holds a {type(content).__name__} and no tensors by name: it is no checkpoint')
    # mmengine says state_dict, SAM 2 says model; some write the tensors bare.
    tensors = next((content[key] for key in ('state_dict', 'model') if isinstance(content.get(key), Mapping)), content)
    strange = [
        name for name, value in tensors.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if strange or not tensors:
        what = f'its entry {strange[0]!r} is a {type(tensors[strange[0]]).__name__}' if strange else 'it is empty'
        raise CheckpointError(f'{path} is no checkpoint of weights: {what}, where tensors by name are expected')
    found = TensorFile(path, files=[path])
    for name, tensor in tensors.items():
        found.tensors[name] = Stored(path, name, tuple(tensor.shape), tensor.is_floating_point(), tensor.detach)
    run = _entry(content, 'message_hub', 'runtime_info', 'run')
    run = run if isinstance(run, Mapping) else {}
    found.config, found.base = str(run.get('config') or _entry(content, 'meta', 'cfg') or ''), run.get('weights')
    return found


def _entry(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise CheckpointError(f'{file} is missing; copy the whole folder again') from error
    except ValueError as error:
        raise CheckpointError(f'{file} is damaged ({error}); copy or download it again') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{file} is damaged: it is a list or a bare value; copy or download it again')
    return content


def lora_of_config(text: str) -> dict[str, float] | None:
    """``r`` and ``alpha`` of the language model's LoRA, as the text of a training config states them.

    The text is parsed and never run. Official configs have ``llm_lora=dict(r=, lora_alpha=)``, ours ``lora=dict(r=,
    alpha=)``.

    Returns:
        None when it states none, or several that differ.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    stated = {tuple(sorted(found.items())) for node in ast.walk(tree) for found in _stated_lora(node)}
    return dict(stated.pop()) if len(stated) == 1 else None


def _stated_lora(node: ast.AST) -> Iterator[dict[str, float]]:
    if not (isinstance(node, ast.keyword) and node.arg in ('llm_lora', 'lora') and isinstance(node.value, ast.Call)):
        return
    values: dict[str, Any] = {
        keyword.arg: keyword.value.value for keyword in node.value.keywords if isinstance(keyword.value, ast.Constant)
    }
    alpha = values.get('lora_alpha', values.get('alpha'))
    plain = not any(values.get(name) for name in ('use_rslora', 'use_dora'))  # another formula than alpha / r
    if plain and isinstance(values.get('r'), int) and isinstance(alpha, (int, float)):
        yield dict(r=values['r'], alpha=alpha)
