"""Random weights: as large as they should be, and drawn fast enough for billions of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from .portable.configuration import Sa2VAConfig
from .portable.network import Sa2VANetwork


class _FastDraws(TorchDispatchMode):
    """Fill large tensors on the CPU with stretches of one pool of random numbers.

    torch draws bf16 normals at 50 million a second and in one thread, so 4 billion of them, drawn twice as
    constructors do, take minutes. Distributions are kept; independence within a large tensor is not, since the pool
    repeats. Its length is a prime, so that no two rows of a matrix are the same stretch. Small tensors, and with them
    every tensor of the tiny models, are drawn as always.
    """

    LARGE = 2**20
    POOL = 2**24 - 3

    def __init__(self):
        super().__init__()
        self.pools: dict[tuple, torch.Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensor = args[0] if args else None
        kwargs = kwargs or {}
        large = func in _RANGES and tensor.device.type == 'cpu' and tensor.numel() >= self.LARGE
        if not large or not tensor.is_contiguous() or kwargs.get('generator') is not None:
            return func(*args, **kwargs)
        centre, scale = _RANGES[func](*args[1:], **kwargs)
        pool = self._pool(func, tensor.dtype)
        flat, filled, start = tensor.view(-1), 0, int(torch.randint(self.POOL, ()))
        while filled < len(flat):
            piece = pool[start : start + len(flat) - filled]
            torch.mul(piece, scale, out=flat[filled : filled + len(piece)])
            filled, start = filled + len(piece), 0
        return tensor.add_(centre) if centre else tensor

    def _pool(self, func, dtype: torch.dtype) -> torch.Tensor:
        """Draws of ``func`` with centre 0 and scale 1."""
        if (func, dtype) not in self.pools:
            numbers = torch.empty(self.POOL, dtype=torch.float32)
            drawn = numbers.normal_() if func is torch.ops.aten.normal_.default else numbers.uniform_(-1, 1)
            self.pools[func, dtype] = drawn.to(dtype)
        return self.pools[func, dtype]


def _normal(mean=0.0, std=1.0, generator=None):
    return mean, std


def _uniform(start=0.0, stop=1.0, generator=None):
    return (start + stop) / 2, (stop - start) / 2


#: Operator to the centre and scale of its draws.
_RANGES = {torch.ops.aten.normal_.default: _normal, torch.ops.aten.uniform_.default: _uniform}


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build_network(config: Sa2VAConfig, dtype: torch.dtype = torch.float32) -> Sa2VANetwork:
    """A network with random weights of type ``dtype``, built in that type; its buffers are fp32.

    The 4B model takes 8.4 GB in bf16 and never more.
    """
    with _default_dtype(dtype), _FastDraws():
        network = Sa2VANetwork(config)
    # In bf16 SAM 2's random frequencies turn the phases of its positional encoding by up to 0.14 rad (0.014 rms).
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.float())
    return network


def initialise_grounding(network: Sa2VANetwork) -> None:
    """Draw the weights of SAM 2 and of the ``[SEG]`` head anew, so that masks can learn to follow the text.

    SAM 2 gets its own code's initialisation, torch's defaults outside the trunk, and the ``[SEG]`` head that of He et
    al. 2015, so that its embeddings are as large as the decoder's other tokens. transformers draws all of SAM 2 with
    standard deviation 0.02 and torch the head at a tenth of the tokens' size; with free embeddings in place of
    ``[SEG]``, size 1 began to fit 15 rows by step 80, size 0.1 by step 140. That is not enough: see
    ``single_template_steps`` of :class:`~llava_sam2.model.VideoLLaVASAMModel`.
    """
    trunk = set(network.grounding_encoder.vision_encoder.backbone.blocks.modules())
    for module in network.grounding_encoder.modules():
        if module not in trunk and hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    initialise_seg_head(network)


def initialise_seg_head(network: Sa2VANetwork) -> None:
    """Draw the weights of the ``[SEG]`` head anew, after He et al. 2015; see :func:`initialise_grounding`."""
    for module in network.text_hidden_fcs:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
