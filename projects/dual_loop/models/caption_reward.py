"""A reward for captions: how well a listener whose weights stand still finds the object by the sampled words."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from llava_sam2.model import Images
from llava_sam2.portable.sequences import on_device

from .bridge import BridgeOutput
from .teacher import Teacher, build_teacher

if TYPE_CHECKING:
    from .dual_loop_model import DualLoopModel


class CaptionReward:
    """Score-function term (REINFORCE, Williams 1992) of sampled captions with a self-critical baseline.

    The reward of a caption is the IoU of the mask that the listener finds by it, as plain text. What is subtracted is
    the reward of the student's own best tokens (Rennie et al. 2017, "Self-critical sequence training"): it does not
    depend on the sample, so the gradient stays unbiased; it belongs to the row alone, so ranks and micro-batches change
    nothing; and it has no state (docs/decisions.md, "The reward's baseline is the student's best caption").

    Args:
        listener: finds objects; gets no gradient.
        max_caption_len: tokens of a caption in the segmentation slot, at most.
    """

    def __init__(self, listener: Teacher, max_caption_len: int):
        self.listener = listener
        self.max_caption_len = max_caption_len

    def __call__(
        self, model: 'DualLoopModel', data: Mapping[str, Any], images: Images, rows: Sequence[int],
        bridged: BridgeOutput, step: int, poll: Callable[[], None] | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The term (P,) of sampled captions, whose gradient reaches the caption path only, and figures.

        Args:
            model: whose captions they are.
            data: a collated batch.
            images: encoded.
            rows: of the batch, those that have been described.
            bridged: their captions.
            step: keys the question; it is that of the student.
            poll: called before the listener's pass; may raise to abandon it.

        Raises:
            ValueError: the bridge says nothing of how probable its samples were.
        """
        if bridged.log_probs is None or bridged.best is None:
            raise ValueError('model.reward_weight needs to know how probable a sampled caption was: a bridge of your '
                             'own gives log_probs and best in its BridgeOutput (docs/extending.md), or use '
                             "bridge='gumbel'")
        base, image2 = model.base, data['image2'].tolist()
        texts = [base.vocabulary.decode(ids).strip() for ids in (*bridged.ids, *bridged.best)]
        asked = [*rows, *rows]
        questions = [base.text_rows.segmentation(step, data['sample_ids'][row], image2[row], text, self.max_caption_len)
                     for row, text in zip(asked, texts)]
        masks = data['masks2'][on_device(asked, data['masks2'].device)]
        rewards, baseline = self.listener.ious(questions, images, masks, poll).chunk(2)
        figures = dict(reward=rewards.mean(), reward_baseline=baseline.mean())
        return score_function(bridged.log_probs, rewards, baseline), figures


def score_function(log_probs: torch.Tensor, rewards: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
    """-(reward - baseline) * log-probability, (R,): a loss whose expected gradient is minus that of the mean reward.

    Args:
        log_probs: (R,), of what was sampled.
        rewards, baseline: (R,), get no gradient. The baseline may not depend on what was sampled.
    """
    return (baseline - rewards).detach() * log_probs


def build_listener(listener: str | dict, model: 'DualLoopModel') -> Teacher:
    """A listener by its word, ``frozen`` or ``live``, or by a registered class of teachers and its further arguments.

    Raises:
        ValueError: the word is unknown, or the listener would wait for averages that nobody gives it.
    """
    built = build_teacher(listener, model.base, 'model.listener')
    if built.needs_averages:
        raise ValueError(f'model.listener={listener!r} waits for averages, which only model.teacher gets: use '
                         "'frozen' (the weights that the model is built with) or 'live' (the student's own)")
    return built
