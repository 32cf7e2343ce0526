"""Distillation of masks: the student's mask against the teacher's soft mask of the same object in the same picture."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from llava_sam2.losses import point_values, sample_points


def mask_distillation(
    logits: torch.Tensor, teacher_logits: torch.Tensor, keys: torch.Tensor, points: Mapping[str, Any] | None
) -> torch.Tensor:
    """Per-pixel divergence KL(teacher || student) (R,) in nats, the mean over each row's points.

    It is the cross-entropy against the teacher's probabilities less their entropy, so its gradient is that of BCE with
    soft targets, and it is 0 where both agree (pixel-wise distillation, Liu et al. 2019, "Structured knowledge
    distillation for semantic segmentation", of soft targets, Hinton et al. 2015, by a mean teacher, Tarvainen and
    Valpola 2017).

    Args:
        logits: (R, h, w), the student's.
        teacher_logits: (R, h, w); gets no gradient.
        keys: (R,) int64; with those of the mask loss it looks at the same points.
        points: ``num_points``, ``oversample_ratio`` and ``importance_ratio`` of the mask loss, see
            :func:`~llava_sam2.losses.sample_points`; None for all pixels.
    """
    student, teacher = logits.float(), teacher_logits.detach().float()
    if points is None:
        student, teacher = student.flatten(1), teacher.flatten(1)
    else:
        chosen = sample_points(student, keys, **points)
        student, teacher = point_values(student, chosen), point_values(teacher, chosen)
    target = teacher.sigmoid()
    crossed = F.binary_cross_entropy_with_logits(student, target, reduction='none')
    return (crossed - F.binary_cross_entropy_with_logits(teacher, target, reduction='none')).mean(dim=1)
