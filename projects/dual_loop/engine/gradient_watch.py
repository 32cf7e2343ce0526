"""Tells of trained tensors that get no gradient: weight decay alone would change them, and shrink them."""

import logging
from collections.abc import Callable, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from .flat import FlatLayout

#: Steps in which a tensor must have been passed over.
PATIENCE = 10


class GradientWatch:
    """Looks at the gradients of the first steps until every tensor has had one.

    A step counts for a tensor if all gradients that reach it are finite and not wholly zero, so neither a skipped step
    does nor one of a loop that joins later. The first one does not either: while LoRA's B is zero, its A has none.

    Args:
        layout: of the gradients.
        excused: whether the tensor of a name may go without.
    """

    def __init__(self, layout: FlatLayout, excused: Callable[[str], bool] = lambda name: False):
        self.layout = layout
        self._counted = torch.zeros(len(layout.names), dtype=torch.long)
        self._waiting = torch.tensor([not excused(name) for name in layout.names])
        self._has_learned = False
        #: Names of what was told of.
        self.told: list[str] = []

    @torch.no_grad()
    def look(self, gradients: Sequence[Tensor], learning: bool = True) -> None:
        """Note one step, and warn once of tensors that were passed over in :data:`PATIENCE` of them.

        Args:
            gradients: K buffers of the layout, averaged over ranks, before surgery.
            learning: whether the learning rate is above zero, so that the step moves the weights.
        """
        if not self._waiting.any():
            return
        largest = torch.stack([torch.stack(torch._foreach_norm(self.layout.split(gradient), ord=float('inf')))
                               for gradient in gradients]).cpu()  # (K, N)
        if not largest.isfinite().all():
            return
        found = largest > 0
        self._waiting &= ~found.any(0)
        if self._has_learned:
            reached = torch.zeros_like(found)
            for tensor, group in enumerate(self.layout.groups):
                reached[list(self.layout.reached_by[group]), tensor] = True
            self._counted += (found.any(1)[:, None] | ~reached).all(0)
        self._has_learned |= learning
        silent = self._waiting & (self._counted >= PATIENCE)
        self._waiting &= ~silent
        names = [name for name, is_silent in zip(self.layout.names, silent.tolist()) if is_silent]
        if names:
            self.told += names
            more = f' and {len(names) - 5} more' if len(names) > 5 else ''
            print_log(f'{len(names)} trained tensors had a gradient of exactly zero in {PATIENCE} steps, so that only '
                      f'weight decay changes them: {", ".join(names[:5])}{more}. Freeze them (leave their part out of '
                      'model.base.trainable), or see why no loss depends on them', 'current', logging.WARNING)
