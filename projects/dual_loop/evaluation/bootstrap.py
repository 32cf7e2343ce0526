"""How sure the figures of an evaluation are: a bootstrap over images.

The sentences of one image share its difficulty, so images are drawn, with replacement, each with all its sentences.
Every metric here is a sum over sentences divided by another one, so a resample is one product of how often each image
was drawn with the sums of each image. The draws depend on the seed and the number of images alone: two models that
were asked about the same images get the same draws, and the interval of their difference is a paired one.

The interval goes from the 2.5 to the 97.5 percentile of the resamples (Efron, 1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .results import ResultsError

COVERAGE = 0.95
PARTS = ('condition', 'frame', 'kind', 'names')  # of a sample, by which a metric may be of a part of them
CHUNK = 1 << 22  # numbers of draws in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """A figure, and what it would have been on other images.

    Attributes:
        value: of the samples as they are.
        draws: (R,) values of the resamples; NaN where a resample has no sample that counts.
    """

    value: float
    draws: np.ndarray

    @property
    def estimate(self) -> Estimate:
        low, high = np.nanquantile(self.draws, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
        return Estimate(self.value, float(low), float(high))

    def __sub__(self, base: 'Resampled') -> 'Resampled':
        return Resampled(self.value - base.value, self.draws - base.draws)


def resample(samples: Sequence[Mapping[str, Any]], names: Sequence[str], resamples: int = 2000, seed: int = 0
             ) -> dict[str, Resampled]:
    """Metrics of resampled images.

    Args:
        samples: of results, in any order.
        names: of the metrics, see :func:`fraction`.
        resamples: R, their number.
        seed: of the draws.

    Returns:
        Name -> its values. For the difference of two models over the same images, subtract them.

    Raises:
        ResultsError: no samples, or a metric that they do not have.
    """
    if not samples:
        raise ResultsError('there are no samples to draw from')
    _, image = np.unique([sample['image'] for sample in samples], return_inverse=True)
    columns = np.stack([column for name in names for column in fraction(samples, name)])  # (2 metrics, sentences)
    sums = np.stack([np.bincount(image, column) for column in columns], axis=1)  # (images, 2 metrics)
    count = len(sums)
    random = np.random.default_rng(seed)
    drawn = np.empty((resamples, sums.shape[1]))
    step = max(1, CHUNK // count)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn[first:first + rows] = random.multinomial(count, np.full(count, 1 / count), size=rows) @ sums
    values = _ratios(columns.sum(axis=1))
    return {name: Resampled(float(value), draws) for name, value, draws in zip(names, values, _ratios(drawn).T)}


def fraction(samples: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators (S,) of a metric: it is the sum of the first over the sum of the second.

    ``ciou``: intersections over unions. ``giou``: mean IoU, 1 where both masks are empty. ``precision@0.5``: share of
    IoU of at least 0.5. ``no_seg_rate``: share of answers without ``[SEG]``. Any other name: mean over the sentences
    of the number that the samples have under it. ``<metric>/<part>`` and ``<metric>/<part>/<part>`` count the samples
    of this condition, frame, kind or names only.

    Raises:
        ResultsError: the samples do not have it.
    """
    metric, *part = name.split('/')
    counted = np.array([{*part} <= {sample.get(key) for key in PARTS} for sample in samples], dtype=bool)
    try:
        values, weights = _fraction(samples, metric)
    except (KeyError, ValueError, TypeError) as error:
        raise ResultsError(f'the samples do not have what the metric {name!r} needs: {error}') from error
    if len(part) > 2 or not counted.any():
        raise ResultsError(f'the metric {name!r} counts none of the samples')
    return values * counted, weights * counted


def _fraction(samples: Sequence[Mapping[str, Any]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    def column(key: str) -> np.ndarray:
        values = np.array([sample[key] for sample in samples])
        if values.dtype.kind not in 'biuf':
            raise TypeError(f'{key!r} is no number')
        return values.astype(np.float64)

    if metric == 'ciou':
        return column('intersection'), column('union')
    if metric == 'giou':
        values = iou(column('intersection'), column('union'))
    elif metric.startswith('precision@'):
        threshold = float(metric.removeprefix('precision@'))
        values = (iou(column('intersection'), column('union')) >= threshold).astype(np.float64)
    elif metric == 'no_seg_rate':
        values = 1 - column('seg')
    else:
        values = column(metric)
    return values, np.ones(len(samples))


def iou(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    """IoU of each sentence (S,); 1 where both masks are empty."""
    return np.divide(intersections, unions, out=np.ones(len(unions)), where=unions > 0)


def _ratios(sums: np.ndarray) -> np.ndarray:
    """Numerators and denominators, alternating in the last axis -> their ratios, NaN for 0 / 0."""
    numerators, denominators = sums[..., ::2], sums[..., 1::2]
    return np.divide(numerators, denominators, out=np.full(numerators.shape, np.nan), where=denominators > 0)
