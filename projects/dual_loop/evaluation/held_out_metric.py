"""Scores of held-out expressions while a model is trained."""

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from .attribute_accuracy import has_new_name
from .scores import MaskScores


@METRICS.register_module()
class ReferringMetric(BaseMetric):
    """cIoU and gIoU of the masks of ``forward(mode='predict')``, at the grounding resolution.

    Figures: ``giou`` and ``ciou``, and ``ciou_<kind>`` for each kind of expression that the data set tells apart. Demo
    data tell kinds apart, so if some of their expressions have names that the first world does not have, also
    ``ciou_new`` and ``ciou_old``, and ``ciou_<kind>_new`` and ``ciou_<kind>_old``.

    Ranks exchange whole numbers of pixels, so the figures are the same for any number of them if the predictions are
    (``GlobalBatchSampler``). An expression counts once however often it comes: the last turn of a sampler may repeat
    some, and an unreadable sample is replaced by another one.

    Args:
        prefix: stands before the names of the figures in the log.
    """

    default_prefix = 'held_out'

    def __init__(self, prefix: str | None = None):
        # 'gpu' gathers through the process group, gloo's too; 'cpu' through files below the current folder, which the
        # machines of a run need not share.
        super().__init__(collect_device='gpu', prefix=prefix)

    def process(self, data_batch: Mapping, data_samples: Sequence[torch.Tensor]) -> None:
        """Keep a batch's pixels as one result; ``data_samples`` are R predicted masks (G, G), bool."""
        predicted = torch.stack(list(data_samples))
        scores = MaskScores()
        scores.add(predicted, data_batch['masks2'].to(predicted.device))
        names = (data_batch[key] for key in ('sources', 'sample_ids', 'kinds'))
        is_new = [bool(kind) and has_new_name(caption)
                  for kind, caption in zip(data_batch['kinds'], data_batch['captions'], strict=True)]
        # Ranks' results are interleaved and cut to as many as there are samples: what is cut off are repeated batches.
        self.results.append(list(zip(*names, is_new, scores.intersections, scores.unions, strict=True)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Figures of all ranks' results."""
        expressions: dict[tuple, tuple] = {}
        for source, sample_id, *result in chain.from_iterable(results):
            expressions.setdefault((source, sample_id), result)
        splits = any(is_new for _, is_new, *_ in expressions.values())
        scores = {'': MaskScores()}
        for kind, is_new, intersection, union in expressions.values():
            names = '_new' if is_new else '_old'
            for key in {'', f'_{kind}', *((names, f'_{kind}{names}') if splits else ())} if kind else {''}:
                of_kind = scores.setdefault(key, MaskScores())
                of_kind.intersections.append(intersection)
                of_kind.unions.append(union)
        return {'giou': scores[''].giou} | {f'ciou{key}': scores[key].ciou for key in sorted(scores)}
