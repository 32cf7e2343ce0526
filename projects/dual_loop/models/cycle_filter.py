"""Rows whose object the teacher finds again from its own description; the others teach nothing (RESMatch, SemiRES)."""

from collections.abc import Callable, Sequence

import torch

from llava_sam2.model import Images

from .teacher import Teacher


def cycle_ious(
    teacher: Teacher, images: Images, image_of_row: Sequence[int], captions: Sequence[str], masks: torch.Tensor,
    poll: Callable[[], None] | None = None,
) -> torch.Tensor:
    """IoU (R,) of the masks that the teacher finds by captions with the true ones; 0 where both are empty.

    The fixed question of monitoring with its answer given: one pass with the teacher's values, without draws.

    Args:
        teacher: who finds them.
        images: encoded, those of the rows for SAM 2 too.
        image_of_row: index of each row's image.
        captions: per row, text.
        masks: (R, G, G) bool.
        poll: called before the pass; may raise to abandon it.
    """
    rows = [teacher.student.text_rows.monitored(image, caption) for image, caption in zip(image_of_row, captions)]
    return teacher.ious(rows, images, masks, poll)


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
