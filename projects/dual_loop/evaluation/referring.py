"""Referring segmentation by the ``forced`` protocol: the answer is given, only the mask is predicted.

Fast, for monitoring. It is not the protocol of published numbers, in which the model must say ``[SEG]`` itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from llava_sam2 import prompts
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.rows import segmentation_row

FORCED_ANSWER = prompts.SEGMENTATION_ANSWERS[0]


@dataclass
class MaskScores:
    """Intersections and unions of masks, in pixels, over expressions."""

    intersections: list[int] = field(default_factory=list)
    unions: list[int] = field(default_factory=list)

    def add(self, predicted: torch.Tensor, target: torch.Tensor) -> None:
        """Add masks (R, H, W), bool."""
        self.intersections += (predicted & target).flatten(1).sum(dim=1).tolist()
        self.unions += (predicted | target).flatten(1).sum(dim=1).tolist()

    @property
    def ciou(self) -> float:
        """Cumulative IoU: sum of intersections over sum of unions."""
        return sum(self.intersections) / max(1, sum(self.unions))

    @property
    def giou(self) -> float:
        """Mean IoU; an empty prediction of an empty mask counts as 1."""
        values = [i / u if u else 1.0 for i, u in zip(self.intersections, self.unions)]
        return sum(values) / max(1, len(values))


@torch.no_grad()
def predict_forced(base: VideoLLaVASAMModel, data: dict) -> torch.Tensor:
    """Mask logits (R, G, G) of a collated batch with captions, with the answer given."""
    images = base.encode(data['pixel_values'], data['g_pixel_values'])
    rows = [
        segmentation_row(
            base.vocabulary, base.config.num_image_tokens, int(data['image2'][row]), prompts.phrase(caption),
            prompts.EVALUATION_QUESTION, FORCED_ANSWER,
        )
        for row, caption in enumerate(data['captions'])
    ]
    batch, hidden_states = base.read(rows, images)
    logits = base.segment(batch, hidden_states, images)
    return F.interpolate(logits[:, None].float(), size=data['masks2'].shape[-2:], mode='bilinear')[:, 0]


def evaluate_referring(model, dataloader: Iterable) -> dict[str, float]:
    """cIoU and gIoU over a loader of captioned samples, at the grounding resolution.

    Args:
        model: a ``DualLoopModel`` or a ``VideoLLaVASAMModel``; it is put into evaluation mode and back.

    Returns:
        ``ciou`` and ``giou``, and ``ciou_<kind>`` for each kind of expression that the data set tells apart.
    """
    base = getattr(model, 'base', model)
    training = model.training
    model.eval()
    scores = {'': MaskScores()}
    for batch in dataloader:
        data = model.data_preprocessor(batch, training=False)['data']
        predicted = predict_forced(base, data) > 0
        for row, kind in enumerate(data['kinds']):
            for key in {'', f'_{kind}'} if kind else {''}:
                scores.setdefault(key, MaskScores()).add(predicted[row, None], data['masks2'][row, None])
    model.train(training)
    return {'giou': scores[''].giou} | {f'ciou{key}': scores[key].ciou for key in sorted(scores)}
