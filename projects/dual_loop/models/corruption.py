"""Corruption of the teacher's captions, so that the student must look at the image and not merely copy."""

from collections.abc import Sequence

import torch

from llava_sam2.randomness import words


def corrupt(
    captions: Sequence[Sequence[int]], ratio: float, ordinary_ids: torch.Tensor, keys: torch.Tensor
) -> tuple[list[list[int]], list[list[int]]]:
    """Replace max(1, round(ratio * n)) of each caption's n tokens by random ordinary ones; none when ``ratio`` is 0.

    Args:
        captions: R lists of tokens without terminator.
        ratio: share of tokens to replace.
        ordinary_ids: (M,) ids to draw from; special tokens are not among them, since ``[SEG]`` or an image token would
            change what the prompt means.
        keys: (R,) int64, on the CPU; what happens to a caption depends on its own key alone.

    Returns:
        The corrupted captions and the replaced positions of each, ascending.
    """
    corrupted, replaced = [list(ids) for ids in captions], []
    longest = max(map(len, captions), default=0)
    # Of each token: its place in the order in which tokens are replaced, and what replaces it.
    order, drawn = words(keys, 2 * longest).view(len(captions), longest, 2).unbind(-1)
    tokens = ordinary_ids[drawn * len(ordinary_ids) >> 32].tolist()
    for ids, own_order, own_tokens in zip(corrupted, order.tolist(), tokens):
        count = max(1, round(ratio * len(ids))) if ids and ratio else 0
        positions = sorted(sorted(range(len(ids)), key=own_order.__getitem__)[:count])
        for position in positions:
            ids[position] = own_tokens[position]
        replaced.append(positions)
    return corrupted, replaced
