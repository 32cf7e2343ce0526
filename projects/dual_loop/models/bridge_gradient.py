"""How much of mask 2's gradient the caption bridge lets pass to the student; what stands in the slot stays as it is."""

from collections.abc import Sequence

import torch


class _LimitedGradient(torch.autograd.Function):
    """Forward: the same. Backward: the gradient times a factor, and not longer than a bound."""

    @staticmethod
    def forward(ctx, embeds, factor, bound):
        ctx.factor, ctx.bound = factor, bound
        return embeds.view_as(embeds)

    @staticmethod
    def backward(ctx, grad):
        limited = grad.float() * ctx.factor
        if ctx.bound is not None:
            # The least normal number, since 0 / 0 would spoil a caption that gets no gradient.
            norm = torch.linalg.vector_norm(limited).clamp(min=torch.finfo(torch.float32).tiny)
            limited = limited * (ctx.bound / norm).clamp(max=1)
        return limited.to(grad.dtype), None, None


def check_limits(factor: float, max_norm: float | None) -> None:
    """Raise ValueError for limits that make no sense."""
    if not 0 <= factor < float('inf'):
        raise ValueError(f'model.bridge_gradient={factor} is a factor of at least 0; 0 detaches the caption')
    if max_norm is not None and not 0 < max_norm < float('inf'):
        raise ValueError(f'model.bridge_max_norm={max_norm} must be above 0, or None for no bound; '
                         'model.bridge_gradient=0 lets nothing pass')


def limited(
    embeds: Sequence[torch.Tensor], factor: float, max_norm: float | None, weights: torch.Tensor
) -> list[torch.Tensor]:
    """The same soft captions, whose gradient is limited on its way back.

    The bound holds for the gradient of a row's own loss, before its weight in the mean: so it means the same in batches
    of every size, and rows spread over micro-batches or ranks give the sum that they give together.

    Args:
        embeds: per row, (n, D).
        factor: on the gradient; 1 changes nothing, 0 detaches.
        max_norm: bound on the Euclidean norm of the (n, D) gradient of each row, after the factor; None for none.
        weights: (R,) of the rows in the loss.
    """
    if factor == 0:
        return [each.detach() for each in embeds]
    if factor == 1 and max_norm is None:
        return list(embeds)
    bounds = [None] * len(embeds) if max_norm is None else (max_norm * weights).unbind()
    return [_LimitedGradient.apply(each, factor, bound) for each, bound in zip(embeds, bounds)]
