"""The head's product for a vocabulary of an odd size.

Rows of 151 679 bf16 logits begin at odd addresses, for which cuBLAS has only kernels of an older generation (H100, 16
rows: 0.61 ms, where reading the weights takes 0.21). So the rows are laid out in memory a few elements further apart.
"""

import torch
from torch import Tensor, nn

#: Elements of a row that tensor cores load at once (16 bytes).
ALIGNMENT = 8


def head_logits(head: nn.Module, states: Tensor) -> Tensor:
    """Logits (..., V) of states (..., D); the same product as ``head(states)``.

    Where it pays (frozen half-precision weights on a GPU, V no multiple of 8) the result is a view with padded rows.
    """
    weight = getattr(head, 'weight', None)
    if type(head) is not nn.Linear or head.bias is not None or weight.requires_grad or not weight.is_cuda \
            or weight.dtype not in (torch.bfloat16, torch.float16) or len(weight) % ALIGNMENT == 0:
        return head(states)
    return AlignedProduct.apply(states.flatten(0, -2).to(weight.dtype), weight).view(*states.shape[:-1], -1)


class AlignedProduct(torch.autograd.Function):
    """x (N, D) times a frozen matrix (V, D), transposed; forward and backward on padded rows."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.mm(x, weight.t(), out=_padded_rows(x, len(weight)))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        weight, = ctx.saved_tensors
        return torch.mm(_padded_rows(grad, len(weight)).copy_(grad), weight), None


def _padded_rows(like: Tensor, width: int) -> Tensor:
    """An uninitialised (N, width) whose rows begin at multiples of the alignment."""
    return like.new_empty(len(like), -(-width // ALIGNMENT) * ALIGNMENT)[:, :width]
