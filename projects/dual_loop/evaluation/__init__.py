"""Measuring trained models."""

from .batches import GlobalBatchSampler
from .referring import MaskScores, ReferringMetric

__all__ = ['GlobalBatchSampler', 'MaskScores', 'ReferringMetric']
