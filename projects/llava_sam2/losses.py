"""Losses per row. Averaging over rows is the caller's, so that ranks and micro-batches add up exactly."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from .randomness import uniform


@MODELS.register_module()
class PointMaskLoss:
    """Weighted BCE and dice of masks on sampled points, as Sa2VA trains.

    Args:
        weight: of BCE.
        num_points, oversample_ratio, importance_ratio: see :func:`sample_points`.
        dice: ``weight`` and ``eps`` of the dice loss.
    """

    def __init__(self, weight: float = 2.0, num_points: int = 12544, oversample_ratio: float = 3.0,
                 importance_ratio: float = 0.75, dice: Mapping[str, float] | None = None):
        self.weight = weight
        self.points: dict = dict(
            num_points=num_points, oversample_ratio=oversample_ratio, importance_ratio=importance_ratio)
        self.dice = dict(weight=0.5, eps=1.0) | dict(dice or {})

    def __call__(
        self, logits: torch.Tensor, masks: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """BCE and dice (R,), weighted, of logits (R, h, w) against masks (R, G, G); ``keys`` (R,) key the draws."""
        logits = logits.float()
        points = sample_points(logits, keys, **self.points)
        predicted = point_values(logits, points)
        target = point_values(mask_targets(masks, logits.shape[-2:]), points)
        return (
            self.weight * point_bce(predicted, target),
            self.dice['weight'] * dice(predicted, target, self.dice['eps']),
        )


def mask_targets(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Masks (..., G, G) as soft targets at the decoder's resolution: the area average, float32 (..., *size)."""
    *lead, height, width = masks.shape
    return F.interpolate(masks.reshape(-1, 1, height, width).float(), size=size, mode='area').reshape(*lead, *size)


def sample_points(
    logits: torch.Tensor,
    keys: torch.Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_ratio: float,
) -> torch.Tensor:
    """Points on which a mask is compared: mostly where the prediction is uncertain (PointRend, as Sa2VA trains).

    Args:
        logits: (R, h, w).
        keys: (R,) int64, on the device of ``logits``; which candidates a row has depends on its own key alone.
        num_points: points per row.
        oversample_ratio: uniform candidates per point.
        importance_ratio: share of points taken from the most uncertain candidates; the rest is uniform.

    Returns:
        (R, num_points, 2) coordinates (x, y) in 0..1.
    """
    num_important = int(importance_ratio * num_points)
    num_candidates = int(oversample_ratio * num_points)
    drawn = uniform(keys, 2 * (num_candidates + num_points - num_important)).unflatten(1, (-1, 2))
    candidates, others = drawn[:, :num_candidates], drawn[:, num_candidates:]
    uncertainty = -point_values(logits.detach(), candidates).abs()
    best = uncertainty.topk(num_important, dim=1).indices
    return torch.cat([candidates.take_along_dim(best[..., None], dim=1), others], dim=1)


def point_values(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values (R, P) of maps (R, h, w) at points (R, P, 2) in 0..1; outside counts as zero."""
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def point_bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy (R,), the mean over each row's points (R, P)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction='none').mean(dim=1)


def dice(logits: torch.Tensor, targets: torch.Tensor, eps: float = 1.0) -> torch.Tensor:
    """Dice loss (R,) with first powers in the denominator: 1 - (2 sum pt + eps) / (sum p + sum t + eps)."""
    probs = logits.sigmoid()
    overlap = (probs * targets).sum(dim=1)
    return 1 - (2 * overlap + eps) / (probs.sum(dim=1) + targets.sum(dim=1) + eps)


def token_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Cross-entropy per row, the mean over the row's own supervised tokens.

    Args:
        logits: (N, V), one per supervised token of the whole batch.
        labels: (N,) token ids.
        rows: (N,) row of each token.
        num_rows: R.

    Returns:
        (R,) float32; 0 for a row without supervised tokens, with the graph attached.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction='none')
    total = losses.new_zeros(num_rows).index_add(0, rows, losses)
    count = losses.new_zeros(num_rows).index_add(0, rows, torch.ones_like(losses))
    return total / count.clamp(min=1)
