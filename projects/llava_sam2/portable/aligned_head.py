"""The head's product for a vocabulary of an odd size.

For 151 679 columns of bf16 cuBLAS has only kernels of an older generation (H100, 16 rows: 0.61 ms, where reading the
weights takes 0.21). So the first 151 672 are computed apart from the last seven, into rows that begin at even places.
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
    """x (N, D) times a frozen matrix (V, D), transposed; forward and backward in an even and an odd part."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        logits, even = _aligned_rows(x, len(weight)), _even(weight)
        torch.mm(x, weight[:even].t(), out=logits[:, :even])
        torch.mm(x, weight[even:].t(), out=logits[:, even:])
        return logits

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        weight, = ctx.saved_tensors
        even, grad = _even(weight), _aligned_rows(grad, len(weight)).copy_(grad)
        return torch.mm(grad[:, :even], weight[:even]).addmm_(grad[:, even:], weight[even:]), None


def _even(weight: Tensor) -> int:
    return len(weight) // ALIGNMENT * ALIGNMENT


def _aligned_rows(like: Tensor, width: int) -> Tensor:
    """An uninitialised (N, width) whose rows begin at multiples of the alignment."""
    return like.new_empty(len(like), -(-width // ALIGNMENT) * ALIGNMENT)[:, :width]
