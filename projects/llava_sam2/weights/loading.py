"""Weights in and out: strict loading of every layout there is, and writing of the released one.

Nothing is loaded silently in part. Within the named parts every tensor must be found with its shape and none may be
left over, except SAM 2's video memory, which is kept for export. Names and shapes of everything are checked before
the first number is copied; then tensors are read one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..portable.configuration import sam2_config
from ..portable.key_maps import is_carried, own_to_released, released_table
from ..portable.pickled import CheckpointError
from ..portable.stored import Stored
from ..portable.video_memory import expected_video_memory
from .fingerprint import Fingerprint, FingerprintCache
from .sources import TOKEN_ROWS, Assembly, assemble
from .token_rows import check_token_rows, with_drawn_rows

__all__ = ['PARTS', 'CheckpointError', 'LoadReport', 'load_pretrained']

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
    """What was found and what was not, per part; printed after loading, and part of the error when it fails.

    Attributes:
        source: folder or file, or several.
        found: part -> number of tensors.
        missing, unexpected, reshaped: part -> names; empty after loading. ``other`` is what belongs to no part.
        carried: number of tensors that are kept for export only.
        drawn: names of tensors that the source has not (or not all rows of) and that training begins anew.
        fingerprint: of all tensors of the source, see :mod:`llava_sam2.weights.fingerprint`.
    """

    source: str
    found: dict[str, int] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    unexpected: dict[str, list[str]] = field(default_factory=dict)
    reshaped: dict[str, list[str]] = field(default_factory=dict)
    carried: int = 0
    drawn: list[str] = field(default_factory=list)
    fingerprint: str = ''

    def __str__(self) -> str:
        parts = ', '.join(f'{part} {count}' for part, count in self.found.items())
        drawn = f'; drawn anew {", ".join(self.drawn)}' if self.drawn else ''
        return (
            f'loaded {sum(self.found.values())} tensors from {self.source} ({parts}; carried through {self.carried}'
            f'{drawn})'
        )

    def faults(self) -> str:
        """All that does not fit, in words; empty when everything does."""
        said = []
        for what, by_part in (
            ('are missing', self.missing), ('are not expected', self.unexpected), ('have another shape', self.reshaped)
        ):
            for part, names in by_part.items():
                shown = ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
                said.append(f'{len(names)} tensors of {part} {what}: {shown}')
        return '; '.join(said)


@torch.no_grad()
def load_pretrained(
    network: nn.Module,
    source: str | Path | Mapping,
    parts: Sequence[str] = tuple(PARTS),
    token_ids: Mapping[str, int] | None = None,
    train_token_rows: bool = False,
) -> LoadReport:
    """Load weights strictly into a network, before LoRA or after.

    Takes no more memory than the network and one tensor.

    Args:
        network: a :class:`~llava_sam2.portable.network.Sa2VANetwork`.
        source: what :mod:`llava_sam2.weights.sources` takes: a path, or a dict of paths laid on top of each other.
        parts: keys of :data:`PARTS`; tensors of other parts are not looked at.
        token_ids: ids of the five added tokens, whose rows are then checked.
        train_token_rows: these rows and the ``[SEG]`` head will be trained, so an InternVL folder with a SAM 2
            checkpoint, which has neither, may be given. The rows start from the mean row; the head keeps its weights.

    Returns:
        The report. SAM 2's memory tensors, if any, are kept as ``network.carried``.

    Raises:
        CheckpointError: on a missing or unexpected tensor, another shape, untrained token rows, or another base than
            the one that trained tensors belong to; before anything is changed.
    """
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f'parts {sorted(unknown)} are unknown, use some of {list(PARTS)}')
    tied = network.config.llm_config.tie_word_embeddings
    assembly = assemble(source, token_ids, tied)
    state = network.state_dict()
    table = released_table({own: tensor.shape for own, tensor in state.items()})
    report = inspect(network, assembly, parts, token_ids if train_token_rows else None)
    if assembly.from_pair and not train_token_rows:
        _refuse_untrained(assembly, report, parts)
    if report.faults():
        raise CheckpointError(
            f'{assembly} does not fit the model: {report.faults()}. '
            f'{assembly.hint or "Check that the configured sizes are those of the checkpoint, or download it again."}'
        )
    for name in (name for name in TOKEN_ROWS if 'language_model' in parts and token_ids and name in assembly.tensors):
        if not assembly.untrained(name):
            check_token_rows(assembly.tensors[name], name, token_ids)
    if tied:
        _check_tied(assembly)
    _check_base(assembly)

    whole = set(parts) == set(PARTS)
    cache = FingerprintCache(assembly.paths[0], assembly.files, assembly.settings) if whole else None
    known = cache.known() if cache else None
    digest = None if known else Fingerprint()
    memory = {}
    for name in sorted(name for name in assembly.tensors if _part(name) in parts):
        tensor = assembly.tensors[name].tensor()
        if digest:
            digest.update(name, tensor)
        if is_carried(name):
            memory[name] = tensor.clone()  # lest it keep the whole file mapped
        elif name in report.drawn:
            tensor = with_drawn_rows(tensor, network.config.llm_config.vocab_size, token_ids)
        for place in table.get(name, ()):
            state[place.own][place.own_rows].copy_(tensor[place.rows])
        del tensor  # before the next is read
    if 'grounding_encoder' in parts:
        network.carried = memory
    report.fingerprint = known or digest.hexdigest()
    if cache and not known:
        cache.write(report.fingerprint)
    return report


def inspect(
    network: nn.Module,
    assembly: Assembly,
    parts: Sequence[str] = tuple(PARTS),
    trained_token_ids: Mapping[str, int] | None = None,
) -> LoadReport:
    """Compare names and shapes of a source with a network, which may be on the meta device; nothing is read.

    Args:
        network: a :class:`~llava_sam2.portable.network.Sa2VANetwork`.
        assembly: the source.
        parts: keys of :data:`PARTS`.
        trained_token_ids: ids of the added tokens if their rows, and the ``[SEG]`` head, need not be in the source.
    """
    report = LoadReport(str(assembly))
    found = {name: stored for name, stored in assembly.tensors.items() if _part(name) in (*parts, 'other')}
    expected = {name: shape for name, shape in released_shapes(network).items() if _part(name) in parts}
    if network.config.llm_config.tie_word_embeddings and TOKEN_ROWS[1] not in found:
        expected.pop(TOKEN_ROWS[1], None)  # one matrix, written once
    if 'grounding_encoder' in parts:
        width = sam2_config(**network.config.grounding_config).mask_decoder_config.hidden_size
        memory = expected_video_memory({name: stored.shape for name, stored in found.items()}, width)
        expected |= memory
        report.carried = len(memory)
    if trained_token_ids is not None and assembly.from_pair:
        report.drawn += [name for name in TOKEN_ROWS if name in expected and assembly.untrained(name)]
        head = [name for name in expected if _part(name) == 'text_hidden_fcs']
        if not any(name in found for name in head):
            report.drawn += head
            for name in head:
                del expected[name]
    first_new = min((trained_token_ids or {}).values(), default=0)
    for name, shape in expected.items():
        if name not in found:
            report.missing.setdefault(_part(name), []).append(name)
        elif found[name].shape != shape and not (name in report.drawn and _lacks_rows(found[name], shape, first_new)):
            report.reshaped.setdefault(_part(name), []).append(
                f'{name} {found[name].shape}, expected {shape} ({found[name].file})')
        elif not found[name].floating:
            report.reshaped.setdefault(_part(name), []).append(
                f'{name} is of integers, expected floating-point numbers ({found[name].file})')
        elif not is_carried(name):
            report.found[_part(name)] = report.found.get(_part(name), 0) + 1
    for name, stored in found.items():
        if name not in expected:
            shown = name if stored.name == name else f'{name} ({stored.name})'
            report.unexpected.setdefault(_part(name), []).append(f'{shown} in {stored.file.name}')
    return report


def released_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Released name to shape of every tensor of a network, LoRA and the carried video memory apart."""
    shapes = {own: tensor.shape for own, tensor in network.state_dict().items()}
    return {
        name: (pieces[-1].rows.stop, *shapes[pieces[0].own][1:]) for name, pieces in own_to_released(shapes).items()
    }


def _part(name: str) -> str:
    return next((part for part, prefix in PARTS.items() if name.startswith(prefix)), 'other')


def _lacks_rows(stored: Stored, shape: tuple[int, ...], first_new: int) -> bool:
    """Whether a matrix lacks nothing but rows of added tokens."""
    return stored.shape[1:] == shape[1:] and first_new <= stored.shape[0] <= shape[0]


def _refuse_untrained(assembly: Assembly, report: LoadReport, parts: Sequence[str]) -> None:
    rows = [name for name in TOKEN_ROWS if 'language_model' in parts and assembly.untrained(name)]
    head = report.missing.get('text_hidden_fcs', [])
    if rows or head:
        raise CheckpointError(
            f'{assembly} cannot be trained from as it is: InternVL and SAM 2 have no [SEG] head and no rows for the '
            f'added tokens ({", ".join([*rows, *head])}). Train them, with model.train_token_rows=True and '
            '"text_hidden_fcs" in model.trainable, or start from a Sa2VA folder, or lay a trained checkpoint on top '
            '(pretrained=dict(mllm=..., sam2=..., trained=...))'
        )


def _check_tied(assembly: Assembly) -> None:
    """One matrix may be stored twice, but not as two that differ: which of them is it?"""
    embedding, head = (assembly.tensors.get(name) for name in TOKEN_ROWS)
    if embedding and head and not torch.equal(embedding.tensor(), head.tensor()):
        raise CheckpointError(
            f'{assembly} holds two matrices, {embedding.name} and {head.name}, where tie_word_embeddings says that '
            'they are one: config.json is of other weights, or they were trained apart'
        )


def _check_base(assembly: Assembly) -> None:
    """Trained tensors, LoRA above all, mean nothing on another base than their own."""
    if assembly.base is None:
        return
    expected, below = assembly.base
    trained = assembly.paths[-1]
    if expected == 'random weights':
        raise CheckpointError(
            f'{trained} was trained from random weights, which no folder holds: it cannot be laid on {below}'
        )
    actual = fingerprint_of(below)
    if actual != expected:
        raise CheckpointError(
            f'{trained} was trained from weights with fingerprint {expected[:12]}, but those of {below} have '
            f'{actual[:12]}: give the base that it was trained from'
        )


def fingerprint_of(assembly: Assembly) -> str:
    """Fingerprint of all tensors of a source, from the cache beside it or by reading them one by one."""
    cache = FingerprintCache(assembly.paths[0], assembly.files, assembly.settings)
    known = cache.known()
    if known is None:
        digest = Fingerprint()
        for name in sorted(assembly.tensors):
            digest.update(name, assembly.tensors[name].tensor())
        known = digest.hexdigest()
        cache.write(known)
    return known
