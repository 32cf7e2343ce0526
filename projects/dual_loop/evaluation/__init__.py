"""Measuring trained models."""

from .batches import GlobalBatchSampler
from .held_out_metric import ReferringMetric
from .scores import MaskScores

__all__ = ['GlobalBatchSampler', 'MaskScores', 'ReferringMetric']
