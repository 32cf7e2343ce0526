"""Lets tensors without memory take the ways that a GPU takes, where these differ from the CPU's."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from llava_sam2.dropout import QuickDropout
from llava_sam2.portable import network
from llava_sam2.portable.aligned_head import ALIGNMENT, AlignedProduct

#: Of its cells a region has one in so many, where a pass predicts it.
REGION_SHARE = 8


class HostReads(TorchFunctionMode):
    """What the host reads of a tensor without memory: zeros, and regions of one cell in ``REGION_SHARE``."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.cpu, Tensor.tolist, Tensor.item) and args and isinstance(args[0], FakeTensor):
            read = torch.zeros(args[0].shape, dtype=args[0].dtype)
            if read.dtype == torch.bool and read.ndim > 1:
                read.flatten(1)[:, : max(1, read[0].numel() // REGION_SHARE)] = True
            return read if func is Tensor.cpu else func(read)
        return func(*args, **(kwargs or {}))


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
              is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
    """``scaled_dot_product_attention`` by the kernel that a GPU would choose."""
    if torch.is_autocast_enabled('cpu'):
        low = torch.get_autocast_dtype('cpu')
        query, key, value = (each.to(low) if each.dtype == torch.float32 else each for each in (query, key, value))
    if query.dtype in (torch.bfloat16, torch.float16) and attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if enable_gqa:
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=True)[0]
    graph = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, graph, dropout_p, is_causal, scale=scale)[0]


def _dropout(self: nn.Dropout, input: Tensor) -> Tensor:
    return torch.native_dropout(input, self.p, True)[0] if self.training and self.p else input


def _head_logits(head: nn.Linear, states: Tensor) -> Tensor:
    weight = getattr(head, 'weight', None)
    if type(head) is not nn.Linear or weight.requires_grad or weight.dtype == torch.float32 \
            or len(weight) % ALIGNMENT == 0:
        return head(states)
    return AlignedProduct.apply(states.flatten(0, -2).to(weight.dtype), weight).view(*states.shape[:-1], -1)


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Inside the block attention, dropout and the head take the GPU's ways, and the host reads what there is not."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(F, 'scaled_dot_product_attention', attention))
        stack.enter_context(patch.object(QuickDropout, 'forward', _dropout))
        stack.enter_context(patch.object(network, 'head_logits', _head_logits))
        stack.enter_context(HostReads())
        yield
