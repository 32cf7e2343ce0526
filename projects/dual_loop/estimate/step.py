"""A step of the real training loop without memory, and how much memory its moments would take."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from dual_loop.engine.flat import PARAMETER_GROUPS, FlatLayout, groups_of_loops
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.models import DualLoopModel
from llava_sam2.model import VideoLLaVASAMModel

from .as_on_gpu import as_on_gpu
from .batches import shadow_batch
from .decoder_layers import CompiledLayers, two_layers_run
from .live_memory import LiveMemory
from .shadow import empty, fake_mode


@dataclass(frozen=True)
class Moment:
    """When a loop's passes take most memory.

    Attributes:
        loop: its name.
        bytes: what batches, passes and gradients take then, beyond what is kept between steps.
        kinds: what it is -> bytes.
    """

    loop: str
    bytes: int
    kinds: Mapping[str, int]


class _InPlace(FlatLayout):
    """Adds gradients without a trace: a GPU needs no memory for it, and tensors without memory would."""

    def accumulate_(self, buffer, grads, scale, loop) -> None:
        pass


class ShadowStep:
    """Steps of a model without memory, of any number of rows.

    Args:
        model: see :func:`~.shadow.shadow_model`.
        groups: ``train_cfg.groups`` of the config.
        accumulative_counts: micro-batches of each loop.
        pairs: share of rows with a second image, of loops that the teacher describes for.
    """

    def __init__(self, model: DualLoopModel, accumulative_counts: int = 1, pairs: float = 0.5,
                 groups: Mapping[str, Mapping] = PARAMETER_GROUPS):
        self.model, self.pairs = model, pairs
        self.accumulative_counts = min(2, accumulative_counts)  # further ones take what the second did
        loops = list(model.loops.values())
        own = [loop.name for loop in loops if loop.joins is None]
        gradient_of = {loop.name: own.index(loop.joins or loop.name) for loop in loops}
        summed = [[name for name, number in gradient_of.items() if number == wanted] for wanted in range(len(own))]
        trained = model.trainables()
        self.layout = _InPlace.from_params(trained.items(), groups_of_loops(loops, groups), summed)
        self.engine = SimpleNamespace(
            raw_model=model, parameters=list(trained.values()), layout=self.layout, gradient_of=gradient_of,
            gradients=[empty(self.layout.numel) for _ in summed], preview_interval=0, _iter=0, _max_iters=1,
            stop=SimpleNamespace(poll=lambda: None))
        self.layers = model.base.network.language_model.model.layers
        self.compiled = CompiledLayers(self.layers, model.base.memory_budget) if model.base.compiled else None

    def moments(self, rows: int | Mapping[str, int]) -> list[Moment]:
        """The fullest moment of each loop, with so many rows in a micro-batch of it."""
        return [self._moment(loop, rows if isinstance(rows, int) else rows[loop.name])
                for loop in self.model.loops.values()]

    def _moment(self, loop, rows: int) -> Moment:
        held = [*self.model.parameters(), *self.model.buffers(), *self.engine.gradients]
        memory = LiveMemory(known=held)
        if self.compiled:
            self.compiled.memory = memory
        with ExitStack() as stack:
            stack.enter_context(memory)
            stack.enter_context(as_on_gpu())
            stack.enter_context(two_layers_run(self.layers, memory))
            stack.enter_context(_encoding(self.model.base, memory))
            with memory.kind('batches'):
                batches = [self._seen(memory, shadow_batch(self.model, loop, rows, self.pairs))
                           for _ in range(self.accumulative_counts)]
            with memory.kind('logits, masks, gradients'):
                DualLoopTrainLoop.loop_gradient(self.engine, loop, batches)  # type: ignore[arg-type]
        return Moment(loop.name, memory.peak, {kind: size for kind, size in memory.at_peak.items() if size > 0})

    @staticmethod
    def _seen(memory: LiveMemory, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        for value in batch.values():
            if isinstance(value, memory.counted) and type(value) is memory.counted:
                memory.see(value)
        return batch


def _encoding(base: VideoLLaVASAMModel, memory: LiveMemory):
    """SAM 2 makes its positions from sizes alone, and keeps those of the last images."""
    own = base.encode

    def encode(*args, **kwargs):
        with memory.kind('images and their maps'), fake_mode(), memory:
            return own(*args, **kwargs)
    return patch.object(base, 'encode', encode)
