"""How much of a gradient is signal: what it has in common with that of another batch."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .flat import FlatLayout
from .surgery import GradientPair, gramians


class GradientAgreement:
    """The cosine of each gradient with that of the step before, whose batch was another one.

    Where a step hardly moves the weights, the mean of this cosine is about the share of the gradient's squared length
    that all batches have in common; the rest is what a batch adds of its own. Needs one more buffer for each gradient,
    which is no part of a checkpoint: the first step after a start has no figure.

    Args:
        layout: of the gradients.
    """

    def __init__(self, layout: FlatLayout):
        self.layout = replace(layout, gradients=2 * layout.gradients)  # this step's, and those of the one before
        self._before: list[Tensor] = []

    @torch.no_grad()
    def look(self, gradients: Sequence[Tensor]) -> dict[str, float]:
        """The figures of a step.

        Args:
            gradients: K buffers of the layout, averaged over ranks, before surgery.

        Returns:
            ``agreement1`` and so on, over all parameters, and behind a slash those of each group. None of a gradient
            that is zero in one of the two steps, and none of a step with a gradient that is not finite, which is
            passed over.
        """
        before = self._before or [torch.zeros_like(gradient) for gradient in gradients]
        groups = gramians([*gradients, *before], self.layout)
        total = torch.stack(list(groups.values())).sum(0)
        if not total.isfinite().all():
            return {}
        torch._foreach_copy_(before, list(gradients))
        self._before = before
        figures = {}
        for suffix, gramian in {'': total, **{f'/{group}': each for group, each in groups.items()}}.items():
            for number in range(len(gradients)):
                pair = GradientPair.from_gramian(gramian, number, len(gradients) + number)
                if pair.norm1 > 0 and pair.norm2 > 0:
                    figures[f'agreement{number + 1}{suffix}'] = pair.cosine
        return figures
