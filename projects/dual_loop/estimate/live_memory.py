"""How many bytes are alive while code runs."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

#: torch's allocator on a GPU gives multiples of this.
BLOCK = 512


class LiveMemory(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed.

    Args:
        known: tensors that were there before and are not counted.
        real: count tensors with memory; else those of ``FakeTensorMode``.

    Attributes:
        live, peak: bytes now and at most.
        by_kind: kind -> bytes alive now, by what was named :meth:`kind` when they were made.
        at_peak: the same when most were alive.
    """

    def __init__(self, known: Iterable[torch.Tensor] = (), real: bool = False):
        super().__init__()
        self.counted = torch.Tensor if real else FakeTensor
        self.live = self.peak = 0
        self.by_kind: dict[str, int] = {}
        self.at_peak: dict[str, int] = {}
        self._kind = 'else'
        self._seen: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_iter(out):
            if isinstance(each, self.counted):
                self.see(each)
        return out

    def see(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, if it is a new one."""
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._add(self._kind, size)
        weakref.finalize(storage, self._add, self._kind, -size)
        if self.live > self.peak:
            self.peak, self.at_peak = self.live, dict(self.by_kind)

    def _add(self, kind: str, size: int) -> None:
        self.live += size
        self.by_kind[kind] = self.by_kind.get(kind, 0) + size

    def start(self) -> None:
        """Look for the peak from here on."""
        self.peak, self.at_peak = self.live, dict(self.by_kind)

    @contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """What is made inside the block is of this kind."""
        before, self._kind = self._kind, name
        try:
            yield
        finally:
            self._kind = before
