"""Number types: bf16 arithmetic round fp32 trainables, and buffers that must stay fp32."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

#: Types in which frozen weights may be stored and passes computed.
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16)


def autocast_beside(dtype: torch.dtype, trained: torch.Tensor | None) -> AbstractContextManager:
    """Autocast to ``dtype`` while the trained weights, of which one is given, are fp32; else no change.

    Let each pass have its own. Autocast keeps casts of trained weights until its outermost context ends; across passes
    they would outlive an exchange of weights, or lack the graph if the first pass had none.
    """
    if dtype == torch.bfloat16 and trained is not None and trained.dtype == torch.float32:
        return torch.autocast(trained.device.type, dtype)
    return nullcontext()


def float_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the floating-point buffers, by name."""
    return {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.is_floating_point()}


def restore_buffers(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Give buffers the values and types of :func:`float_buffers` back, on the device where they are now."""
    for name, value in values.items():
        path, _, last = name.rpartition('.')
        owner = module.get_submodule(path)
        value = value.to(getattr(owner, last).device, copy=True)
        setattr(owner, last, value)
        if hasattr(owner, f'original_{last}'):  # the one that transformers' RoPE falls back to
            setattr(owner, f'original_{last}', value)
