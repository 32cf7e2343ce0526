"""Cross-entropy at chosen positions of captions."""

from collections.abc import Sequence

import torch

from llava_sam2.losses import token_cross_entropy


def positions_loss(
    logits: Sequence[torch.Tensor], targets: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Cross-entropy (R,) of each row at its given positions.

    Args:
        logits: per row, (n, V).
        targets: per row, n token ids.
        positions: per row, the positions that count; a row without any gets 0.
    """
    device = logits[0].device
    chosen = torch.cat([part[list(places)] for part, places in zip(logits, positions)])
    labels = torch.tensor([row[place] for row, places in zip(targets, positions) for place in places], device=device)
    rows = torch.tensor([row for row, places in enumerate(positions) for _ in places], device=device)
    return token_cross_entropy(chosen, labels.long(), rows.long(), len(logits))
