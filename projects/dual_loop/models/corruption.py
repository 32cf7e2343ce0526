"""Corruption of the teacher's caption, so that the student must look at the image and not merely copy."""

from collections.abc import Sequence

import torch


def corrupt(
    ids: Sequence[int], ratio: float, ordinary_ids: torch.Tensor, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Replace max(1, round(ratio * n)) of n tokens by random ordinary ones; none when ``ratio`` is 0.

    Args:
        ids: caption tokens without terminator.
        ratio: share of tokens to replace.
        ordinary_ids: (M,) ids to draw from; special tokens are not among them, since ``[SEG]`` or an image token would
            change what the prompt means.
        generator: on the CPU.

    Returns:
        The corrupted ids and the replaced positions, ascending.
    """
    if not ids or ratio == 0:
        return list(ids), []
    count = max(1, round(ratio * len(ids)))
    positions = sorted(torch.randperm(len(ids), generator=generator)[:count].tolist())
    drawn = ordinary_ids[torch.randint(len(ordinary_ids), (count,), generator=generator)].tolist()
    corrupted = list(ids)
    for position, token in zip(positions, drawn):
        corrupted[position] = token
    return corrupted, positions
