"""Scores of predicted masks, from their intersections and unions with the true ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

#: IoU from which on a mask counts as found.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class MaskScores:
    """Intersections and unions of masks, in pixels, over sentences."""

    intersections: list[int] = field(default_factory=list)
    unions: list[int] = field(default_factory=list)

    def add(self, predicted: torch.Tensor, target: torch.Tensor) -> None:
        """Add masks (R, H, W), bool."""
        self.intersections += (predicted & target).flatten(1).sum(dim=1).tolist()
        self.unions += (predicted | target).flatten(1).sum(dim=1).tolist()

    @property
    def ious(self) -> list[float]:
        """IoU of each; an empty prediction of an empty mask counts as 1."""
        return [i / u if u else 1.0 for i, u in zip(self.intersections, self.unions)]

    @property
    def ciou(self) -> float:
        """Cumulative IoU: sum of intersections over sum of unions."""
        return sum(self.intersections) / max(1, sum(self.unions))

    @property
    def giou(self) -> float:
        """Mean IoU."""
        return sum(self.ious) / max(1, len(self.unions))

    def precision(self, threshold: float) -> float:
        """Share of sentences with an IoU of at least ``threshold``."""
        return sum(iou >= threshold for iou in self.ious) / max(1, len(self.unions))


def part_metrics(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``ciou`` and ``giou`` of each kind of sentence and, where some have new names, of new and old ones, as
    ``<metric>/<kind>``, ``<metric>/<names>`` and ``<metric>/<kind>/<names>``; none where samples have no ``kind``."""
    samples = [sample for sample in samples if sample.get('kind')]
    parts: dict[str, list] = {}
    splits = any(sample['names'] == 'new' for sample in samples)
    for sample in samples:
        names = (sample['names'], f'{sample["kind"]}/{sample["names"]}') if splits else ()
        for part in (sample['kind'], *names):
            parts.setdefault(part, []).append(sample)
    figures = {part: mask_metrics(parts[part]) for part in sorted(parts)}
    return {f'{metric}/{part}': of_part[metric] for metric in ('ciou', 'giou') for part, of_part in figures.items()}


def mask_metrics(samples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of the samples of results (``intersection``, ``union``, ``seg``).

    ``ciou``, ``giou``, ``precision@0.5`` to ``precision@0.9`` and ``no_seg_rate``, the share of answers without
    ``[SEG]``, which count everywhere as empty masks.
    """
    samples = list(samples)
    scores = MaskScores([sample['intersection'] for sample in samples], [sample['union'] for sample in samples])
    return dict(
        ciou=scores.ciou, giou=scores.giou, **{f'precision@{value}': scores.precision(value) for value in THRESHOLDS},
        no_seg_rate=sum(not sample['seg'] for sample in samples) / max(1, len(samples)),
    )
