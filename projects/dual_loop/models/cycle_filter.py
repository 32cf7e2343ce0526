"""Rows whose object the teacher finds again from its own description; the others teach nothing (RESMatch, SemiRES)."""

from collections.abc import Sequence

import torch

from llava_sam2.model import Images
from llava_sam2.portable.network import binary_masks

from .teacher import Teacher


@torch.no_grad()
def cycle_ious(
    teacher: Teacher, images: Images, image_of_row: Sequence[int], captions: Sequence[str], masks: torch.Tensor
) -> torch.Tensor:
    """IoU (R,) of the masks that the teacher finds by captions with the true ones; 0 where both are empty.

    The fixed question of monitoring with its answer given: one pass, without draws. It runs with the teacher's values
    and no dropout; ``text_hidden_fcs`` and the mask decoder, of which a teacher has no values, are the student's.

    Args:
        teacher: whose ``active`` puts its values in place.
        images: encoded, those of the rows for SAM 2 too.
        image_of_row: index of each row's image.
        captions: per row, text.
        masks: (R, G, G) bool.
    """
    base = teacher.student
    rows = [base.text_rows.monitored(image, caption) for image, caption in zip(image_of_row, captions)]
    with teacher.active():
        _, hidden_states = base.read_rows(rows, images)
        logits = base.segment(rows, hidden_states, images)
    found = binary_masks(logits[:, None], masks.shape[-2:])[:, 0]
    shared, either = ((found & masks).flatten(1).sum(dim=1), (found | masks).flatten(1).sum(dim=1))
    return shared / either.clamp(min=1)


def filtered(
    weights: torch.Tensor, rows: torch.Tensor, ious: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Take the weight from rows below the threshold.

    The others keep theirs: docs/decisions.md, "Filtered rows count with value 0".

    Args:
        weights: (R,) of all rows in the loss.
        rows: (P,) int64, those that were looked for.
        ious: (P,) of these.
        threshold: smallest IoU that counts.

    Returns:
        The weights, and the figures ``rows_kept``, the share of these rows that is kept, and ``cycle_iou``, their mean.
    """
    kept = (ious >= threshold).to(weights.dtype)
    return (weights.index_copy(0, rows, weights[rows] * kept),
            dict(rows_kept=kept.mean(), cycle_iou=ious.mean()))
