"""Exclusive seconds of the parts of a step, by calls that are timed from outside."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from dual_loop.models import DualLoopModel

from .roofs import synchronise


class Phases:
    """Seconds of named phases; while one runs inside another, only the inner one's clock goes.

    The device is waited for at each border, so a step takes a little longer than without.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def _turn(self) -> None:
        synchronise(self.device)
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken

    def watching(self, model: DualLoopModel) -> AbstractContextManager[None]:
        """Time what the loops call, inside the block."""
        base, first = model.base, next(iter(model.loops.values()))
        watched = [
            (base, 'encode', 'encoders'), (base, 'read_rows', 'language model'), (base, 'logits', 'head'),
            (base, 'segment', 'mask decoder'), (base, 'mask_losses', 'mask losses'),
            (model.teacher, 'describe', 'teacher'),
            (torch.autograd, 'grad', 'backward'),
        ]
        if getattr(first, 'bridge', None) is not None:
            watched.append((first, 'bridge', 'bridge'))
        return self.watching_calls(watched)

    @contextmanager
    def watching_calls(self, watched: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Time calls inside the block: of each the owner (an object, a class or a module), the name and the phase."""
        own = [vars(owner).get(name) for owner, name, _ in watched]
        for owner, name, phase in watched:
            setattr(owner, name, self._timed(getattr(owner, name), phase))
        try:
            yield
        finally:
            for (owner, name, _), value in zip(watched, own):
                if value is None:  # a method of its class
                    delattr(owner, name)
                else:
                    setattr(owner, name, value)

    def _timed(self, function: Callable, phase: str) -> Callable:
        def timed(*args, **kwargs):
            with self(phase):
                return function(*args, **kwargs)
        return timed
