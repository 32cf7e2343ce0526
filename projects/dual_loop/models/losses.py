"""Cross-entropy at chosen positions of captions."""

from collections.abc import Sequence
from itertools import accumulate

import torch

from llava_sam2.losses import token_cross_entropy
from llava_sam2.portable.sequences import on_device


def positions_loss(
    logits: torch.Tensor, targets: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Cross-entropy (R,) of each row at its given positions.

    Args:
        logits: (N, V), of all rows one after the other.
        targets: per row, n token ids.
        positions: per row, the positions that count; a row without any gets 0.
    """
    starts = accumulate(map(len, targets), initial=0)
    chosen = [(start + place, row[place], number) for number, (start, row, places)
              in enumerate(zip(starts, targets, positions)) for place in places]
    where, labels, rows = on_device(chosen, logits.device).long().view(-1, 3).unbind(1)
    return token_cross_entropy(logits[where], labels, rows, len(targets))
