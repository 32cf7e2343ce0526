"""Base weights put together from one or several checkpoints, under the released names.

A source is a path, or a dict of paths that are laid on top of each other:

=====================================  ==============================================================================
``path`` or ``dict(base=path)``        a released folder, or one file with all tensors under any of the layouts
``dict(mllm=path, sam2=path)``         an InternVL2.5 folder and a checkpoint of SAM 2: no ``[SEG]`` head, and no
                                       trained rows of the added tokens
either with ``trained=path``           a checkpoint that holds only what was trained, on top: the official ``.pth``, or
                                       one of ours; its LoRA is merged in fp32
either with ``lora=dict(r=, alpha=)``  where the file with LoRA tensors does not hold its config, which says the same
=====================================  ==============================================================================
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..paths import resolve
from ..portable.configuration import Sa2VAConfig, config_of_folder
from ..portable.key_maps import SAM2_PREFIX, is_lora, is_token_rows, own_to_released, training_to_released
from ..portable.pickled import CheckpointError
from ..portable.released import EMBEDDING, HEAD
from ..portable.stored import TRAINABLES, Stored, TensorFile, lora_of_config, open_tensors

_KEYS = {'base', 'mllm', 'sam2', 'trained', 'lora'}
#: How the names of our own checkpoints begin, with and without the loops round the base model.
_OWN = re.compile(r'^(base\.)?network\.')
_LORA = re.compile(r'^(language_model\..+)\.lora_([AB])\.(\w+\.)?weight$')
TOKEN_ROWS = (EMBEDDING, HEAD)


@dataclass
class Assembly:
    """Tensors by released name, and where they come from.

    Attributes:
        paths: the parts of the source, for messages.
        tensors: released name -> tensor, LoRA merged.
        files: all files that are read.
        settings: what else decides the result.
        from_pair: put together from InternVL and SAM 2.
        hint: what to do about missing tensors.
        base: fingerprint that the base below the trained tensors must have, and that base; None if not known.
    """

    paths: list[Path]
    tensors: dict[str, Stored]
    files: list[Path]
    settings: str = ''
    from_pair: bool = False
    hint: str = ''
    base: 'tuple[str, Assembly] | None' = None

    def __str__(self) -> str:
        return ' + '.join(map(str, self.paths))

    def untrained(self, name: str) -> bool:
        """Whether the tensor is InternVL's, which knows nothing of the added tokens."""
        return self.from_pair and name in self.tensors and self.paths[0] in (
            self.tensors[name].file, self.tensors[name].file.parent)


@dataclass
class _Layer:
    """Tensors of one checkpoint by released name; LoRA and single token rows apart."""

    tensors: dict[str, Stored] = field(default_factory=dict)
    lora: dict[str, Stored] = field(default_factory=dict)
    rows: dict[str, Stored] = field(default_factory=dict)
    own: bool = False


def resolved(source: str | Path | Mapping) -> dict:
    """A source as a dict with absolute paths; relative ones are read against the checkout."""
    return {key: value if key == 'lora' else resolve(value) for key, value in _parts(source).items()}


def config_of_source(source: str | Path | Mapping, stated: Mapping | None) -> Sa2VAConfig:
    """Sizes of the network for a source, from the config.json of its folder.

    Args:
        source: see above.
        stated: arguments of :class:`Sa2VAConfig` that must agree with the folder; needed in full for a single file.
            Only an InternVL folder may have fewer token rows than stated, for the added tokens are not in it.

    Raises:
        FileNotFoundError: a folder without config.json.
        ValueError: the folder says something else than ``stated``, or a file is given and nothing stated.
    """
    parts = _parts(source)
    place = Path(parts['mllm' if 'mllm' in parts else 'base'])
    if place.is_file() or (place / TRAINABLES).is_file():
        if stated is None:
            raise ValueError(f'{place} does not say how large the network is: state all sizes in model.network')
        return Sa2VAConfig(**stated)
    if 'base' in parts:
        return config_of_folder(place, stated)
    stated = {**(stated or {}), 'llm_config': dict((stated or {}).get('llm_config', {}))}
    rows = stated['llm_config'].pop('vocab_size', 0)
    config = config_of_folder(place, stated)
    config.llm_config.vocab_size = max(rows, config.llm_config.vocab_size)
    return config


def _parts(source: str | Path | Mapping) -> dict:
    parts = dict(source) if isinstance(source, Mapping) else dict(base=source)
    given = set(parts) - {'trained', 'lora'}
    if set(parts) - _KEYS or given not in ({'base'}, {'mllm', 'sam2'}):
        raise ValueError(
            f'weights are given as {sorted(parts)}: use a path, dict(base=path) or dict(mllm=folder, sam2=file), each '
            'also with trained=path and lora=dict(r=..., alpha=...)'
        )
    return parts


def assemble(
    source: str | Path | Mapping, token_ids: Mapping[str, int] | None = None, tied: bool = False
) -> Assembly:
    """Open all parts of a source and name every tensor as released.

    Args:
        source: see above; paths are used as they are.
        token_ids: ids of the five added tokens; needed for a checkpoint that trained their rows alone.
        tied: embedding and head are one matrix, so that a trained embedding is the head too.

    Raises:
        CheckpointError: a part cannot be read, contradicts another, or has LoRA that cannot be merged.
        ValueError: the dict is none of the above.
    """
    parts = _parts(source)
    if 'base' in parts:
        assembly = _lay(None, open_tensors(parts['base']), parts.get('lora'), token_ids)
    else:
        assembly = _pair(open_tensors(parts['mllm']), open_tensors(parts['sam2']))
    if 'trained' in parts:
        below, trained = assembly.tensors, _lay(assembly, open_tensors(parts['trained']), parts.get('lora'), token_ids)
        new = {name for name in TOKEN_ROWS if trained.tensors.get(name) is not below.get(name)}
        if tied and new == {EMBEDDING}:
            trained.tensors.pop(HEAD, None)
        assembly = trained
    return assembly


def _pair(mllm: TensorFile, sam2: TensorFile) -> Assembly:
    tensors, grounding = _layer(mllm).tensors, {}
    for name, stored in sam2.tensors.items():
        name = name if name.startswith(SAM2_PREFIX) else SAM2_PREFIX + name
        grounding[training_to_released(name)] = stored
    twice = sorted(tensors.keys() & grounding.keys())
    if twice:
        raise CheckpointError(
            f'{mllm.path} and {sam2.path} both hold {twice[0]}: mllm must be an InternVL folder; a whole Sa2VA folder '
            'is given alone'
        )
    return Assembly([mllm.path, sam2.path], tensors | grounding, mllm.files + sam2.files, from_pair=True)


def _lay(
    below: Assembly | None, file: TensorFile, lora: Mapping | None, token_ids: Mapping[str, int] | None
) -> Assembly:
    """Put a checkpoint on top of others."""
    layer = _layer(file)
    result = Assembly([file.path], {}, list(file.files))
    if below is not None:
        result = replace(below, paths=below.paths + result.paths, tensors=dict(below.tensors),
                         files=below.files + result.files)
        if file.base is not None:
            result.base = (file.base, below)
    if below is None and (layer.own or layer.lora or any(name.startswith('mllm.') for name in file.tensors)):
        result.hint = (
            'A training checkpoint may hold the trained tensors only: give the weights it was trained from too, '
            f'pretrained=dict(base=..., trained={str(file.path)!r}), or mllm=... and sam2=... in place of base.'
        )
    result.tensors |= layer.tensors
    if layer.rows:
        result.tensors |= _with_rows(file, layer.rows, result, token_ids)
    if layer.lora:
        scale = _scale(file, layer.lora, lora)
        result.settings += f'lora {scale}\n'
        result.tensors |= _merged(file, layer.lora, result, scale)
    return result


def _layer(file: TensorFile) -> _Layer:
    layer = _Layer(own=any(_OWN.match(name) for name in file.tensors))
    plain: dict[str, Stored] = {}
    for stored_name, stored in file.tensors.items():
        name = _OWN.sub('', stored_name, count=1) if layer.own else training_to_released(stored_name)
        kind = layer.lora if is_lora(name) else layer.rows if is_token_rows(name) else plain
        if name in kind:
            raise CheckpointError(f'{file.path} holds {name} twice, once as {stored_name}')
        kind[name] = stored
    layer.tensors = _joined(file, plain) if layer.own else plain
    return layer


def _joined(file: TensorFile, own: Mapping[str, Stored]) -> dict[str, Stored]:
    """Our modules' tensors as released ones: rows of several may make up one (q, k, v)."""
    table = own_to_released({name: stored.shape for name, stored in own.items()})
    joined = {}
    for name, pieces in table.items():
        first = own[pieces[0].own]
        shape = (pieces[-1].rows.stop, *first.shape[1:])
        starts = [piece.rows.start for piece in pieces]
        if starts != [0] + [piece.rows.stop for piece in pieces[:-1]]:
            raise CheckpointError(f'{file.path} holds a part of {name} only ({first.name}); it is no whole checkpoint')

        def rows_together(pieces=pieces):
            return torch.cat([own[piece.own].tensor()[piece.own_rows] for piece in pieces])

        joined[name] = Stored(first.file, first.name, shape, first.floating, rows_together)
    return joined


def _scale(file: TensorFile, lora: Mapping[str, Stored], stated: Mapping | None) -> float:
    settings, found = dict(stated or {}), lora_of_config(file.config)
    if stated and found and settings != found:
        raise CheckpointError(
            f'lora={settings} contradicts the config inside {file.path}, which was trained with {found}: leave lora out'
        )
    settings = settings or found or {}
    if set(settings) != {'r', 'alpha'}:
        raise CheckpointError(
            f'{file.path} has LoRA tensors ({next(iter(lora.values())).name}) but does not say how they were scaled: '
            'give lora=dict(r=..., alpha=...) of its training, e.g. pretrained=dict(base=..., trained=..., '
            'lora=dict(r=128, alpha=256))'
        )
    for name, stored in lora.items():
        rank = stored.shape[0 if '.lora_A.' in name else -1]
        if rank != settings['r']:
            raise CheckpointError(f'{stored.file}: {stored.name} has rank {rank}, but lora states r={settings["r"]}')
    return settings['alpha'] / settings['r']


def _merged(file: TensorFile, lora: Mapping[str, Stored], assembly: Assembly, scale: float) -> dict[str, Stored]:
    pairs: dict[str, dict[str, Stored]] = {}
    for name, stored in lora.items():
        match = _LORA.match(name)
        if not match:
            raise CheckpointError(f'{file.path}: {stored.name} is LoRA of another part than the language model, which '
                                  'cannot be merged here')
        pairs.setdefault(f'{match[1]}.weight', {})[match[2]] = stored
    merged = {}
    for name, pair in pairs.items():
        if set(pair) != {'A', 'B'}:
            raise CheckpointError(f'{file.path} holds {next(iter(pair.values())).name} without its other half')
        weight = assembly.tensors.get(name)
        if weight is None:
            raise CheckpointError(f'{file.path} has LoRA for {name}, which {assembly} does not hold. {assembly.hint}')
        a, b = pair['A'], pair['B']
        if weight.shape != (b.shape[0], a.shape[1]):
            raise CheckpointError(
                f'{file.path}: {b.name} {b.shape} times {a.name} {a.shape} does not fit {name} {weight.shape} of '
                f'{weight.file}; it was trained on another base'
            )

        def with_lora(weight=weight, a=a, b=b):
            base = weight.tensor()
            return (base.float() + b.tensor().float() @ a.tensor().float() * scale).to(base.dtype)

        merged[name] = replace(weight, file=file.path, tensor=with_lora)
    return merged


def _with_rows(
    file: TensorFile, rows: Mapping[str, Stored], assembly: Assembly, token_ids: Mapping[str, int] | None
) -> dict[str, Stored]:
    """Whole embedding and head from a base and the trained rows of the added tokens."""
    replaced = {}
    for own, stored in rows.items():
        name = re.sub(r'\.token_adapter\..*$', '.weight', own)
        weight = assembly.tensors.get(name)
        if weight is None:
            raise CheckpointError(f'{file.path} has rows for {name}, which {assembly} does not hold. {assembly.hint}')
        ids = sorted((token_ids or {}).values())
        if stored.shape != (len(ids), weight.shape[1]) or ids != list(range(ids[0], ids[0] + len(ids))):
            raise CheckpointError(
                f'{file.path}: {stored.name} {stored.shape} are rows of other tokens than those of the tokenizer, '
                f'{dict(token_ids or {})}'
            )
        if weight.shape[0] < ids[0]:
            raise CheckpointError(f'{weight.file}: {name} has {weight.shape[0]} rows, and tokens begin at {ids[0]}')

        def with_trained_rows(weight=weight, stored=stored, ids=ids):
            base = weight.tensor()
            return torch.cat([base[: ids[0]], stored.tensor().to(base.dtype), base[ids[-1] + 1 :]])

        shape = (max(weight.shape[0], ids[-1] + 1), weight.shape[1])
        replaced[name] = replace(weight, file=file.path, shape=shape, tensor=with_trained_rows)
    return replaced
