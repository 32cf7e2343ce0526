"""Decoder layers of a model without memory: compiled as inductor would, and most of them by a stand-in.

All layers of a language model keep the same. So the first and the last are run, and each between them is one operation
that keeps as many bytes as the first did: a step of 36 layers takes the time of one of two.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .live_memory import LiveMemory
from .shadow import fake_mode


class _Kept(torch.autograd.Function):
    """A layer's output, gradients and kept bytes without its work."""

    @staticmethod
    def forward(ctx, x: Tensor, kept: int, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x.new_empty(max(0, kept), dtype=torch.uint8), *parameters)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        _, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (torch.empty_like(grad) if wanted[0] else None, None,
                *(torch.empty_like(p) if need else None for p, need in zip(parameters, wanted[2:])))


class _Plain(nn.Module):
    """A layer's own forward as a module that can be given other parameters."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = copy.copy(layer)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return type(self.layer).forward(self.layer, x, attention_mask=None, position_embeddings=(cos, sin))


class CompiledLayers:
    """What ``torch.compile`` makes of decoder layers: AOTAutograd's two graphs, cut where inductor cuts them.

    Args:
        layers: all alike.
        memory_budget: as in :func:`~llava_sam2.compiled_layers.compile_layers`.

    Attributes:
        memory: counts what the graphs make.
    """

    def __init__(self, layers: nn.ModuleList, memory_budget: float):
        self.plain, self.memory_budget = _Plain(layers[0]), memory_budget
        self.memory: LiveMemory | None = None
        self.names = [name for name, _ in self.plain.named_parameters()]
        self.compiled: dict[tuple, Callable] = {}
        for layer in layers:
            layer._compiled_call_impl = self._of(layer)

    def _of(self, layer: nn.Module) -> Callable[..., Tensor]:
        def call(x: Tensor, attention_mask=None, position_embeddings=None, **rest) -> Tensor:
            if attention_mask is not None:
                raise NotImplementedError('a compiled layer with a mask')
            cos, sin = position_embeddings
            key = (x.shape, x.dtype, x.requires_grad, torch.is_grad_enabled(), layer.training,
                   torch.is_autocast_enabled('cpu'))
            if key not in self.compiled:
                compiled = self._compile()
                memory, self.memory = self.memory, None
                # Tracing makes tensors that no run would, and keeps some that checkpointing would count.
                with _disable_current_modes(), torch.autograd.graph.saved_tensors_hooks(_same, _same):
                    compiled(x, cos, sin, *layer.parameters())
                self.memory = memory
                self.compiled[key] = compiled
            return self.compiled[key](x, cos, sin, *layer.parameters())
        return call

    def _compile(self) -> Callable[..., Tensor]:
        from functorch.compile import make_boxed_func
        from torch._functorch.aot_autograd import aot_function
        from torch._inductor.decomposition import select_decomp_table

        def forward(x: Tensor, cos: Tensor, sin: Tensor, *parameters: Tensor) -> Tensor:
            return torch.func.functional_call(self.plain, dict(zip(self.names, parameters)), (x, cos, sin))

        def as_it_is(graph, inputs):
            def run(*tensors):  # what a graph draws or fills has no memory either
                with fake_mode(), self.memory or nullcontext():
                    return graph.forward(*tensors)
            return make_boxed_func(run)

        return aot_function(forward, fw_compiler=as_it_is, bw_compiler=as_it_is, partition_fn=self._partition,
                            decompositions=select_decomp_table())

    def _partition(self, joint, inputs, **options):
        from torch._functorch import config
        from torch._functorch.partitioners import min_cut_rematerialization_partition
        from torch._inductor.fx_passes.joint_graph import joint_graph_passes
        from torch._inductor.virtualized import V

        with fake_mode(), V.set_fake_mode(fake_mode()), config.patch(activation_memory_budget=self.memory_budget):
            joint = joint_graph_passes(joint)
            options['static_lifetime_input_indices'] = list(range(3, 3 + len(self.names)))
            return min_cut_rematerialization_partition(joint, inputs, **options)


def _same(tensor: Tensor) -> Tensor:
    return tensor


@contextmanager
def two_layers_run(layers: nn.ModuleList, memory: LiveMemory) -> Iterator[None]:
    """Inside the block only the first and the last of the layers run; the others stand in."""
    kept: dict[tuple, int] = {}
    place = {id(layer): number for number, layer in enumerate(layers)}
    first_at = 0
    cls = type(layers[0])
    own = cls.__call__

    def call(layer: nn.Module, x: Tensor, *args, **kwargs) -> Tensor:
        nonlocal first_at
        number, key = place.get(id(layer)), (x.shape, torch.is_grad_enabled())
        with memory.kind('decoder layers'):
            if number == 0:
                first_at = memory.live
            elif number == 1:  # the first one's input is gone, unless it is kept
                kept[key] = memory.live - first_at
            if number is None or number in (0, len(layers) - 1):
                return own(layer, x, *args, **kwargs)
            return _Kept.apply(x, kept[key], *(p for p in layer.parameters() if p.requires_grad))

    with patch.object(cls, '__call__', call):
        yield
