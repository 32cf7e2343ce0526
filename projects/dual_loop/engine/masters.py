"""The fp32 values behind the trained parameters, whatever type the passes use."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


@torch.no_grad()
def master_weights(named_params: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Name and fp32 value of each parameter.

    An fp32 parameter is its own master. Of a bf16 one DeepSpeed keeps the fp32 value in pieces over the ranks; they are
    put together here, so every rank must read all of them, in the same order.

    Raises:
        RuntimeError: a parameter of another type without fp32 value; a bf16 parameter of size 0.2 does not move in
            steps of 1e-5 (docs/decisions.md, "Masters are fp32").
    """
    for name, param in named_params:
        value = param.detach()
        if value.dtype != torch.float32:
            if not hasattr(param, '_hp_mapping'):
                raise RuntimeError(f"trainable '{name}' is {param.dtype} and has no fp32 value: train with "
                                   '--deepspeed zero1 or zero2, or leave the trained parameters in fp32')
            from deepspeed.utils import safe_get_full_fp32_param  # only needed where DeepSpeed already runs

            value = safe_get_full_fp32_param(param)
        yield name, value
