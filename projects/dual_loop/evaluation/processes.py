"""The processes of one evaluation: who takes which batch, how results come together, and how all of them end."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from dual_loop.datasets.workers import LOADER_TIMEOUT
from dual_loop.stop import Interrupted, end_with_launcher

_STOPPED = 'stopped'
_DONE = 'done'
_PAUSE = 0.05  # seconds between two looks at the store


class Stopped(RuntimeError):
    """Another process of the evaluation cannot go on."""


class Processes:
    """This process among those that a launcher started, or alone; for one evaluation.

    Only samples are exchanged, as JSON through the launcher's key-value store. No process ever waits inside a
    collective, so that each one can be interrupted at any time, and there is nothing that an evaluation on GPUs would
    need a backend for.

    Args:
        loader_timeout: seconds that each waits for the images of a batch at most; 0 for no limit.

    Attributes:
        rank, size: of this process, and how many there are.
        device: the one to compute on; each process of a machine has its own GPU.
    """

    def __init__(self, loader_timeout: float = LOADER_TIMEOUT):
        self.loader_timeout = loader_timeout
        end_with_launcher()
        self.rank, self.size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self._store = next(dist.rendezvous('env://'))[0] if self.size > 1 else dist.HashStore()
        self.device = torch.device('cpu')
        if torch.cuda.is_available():
            self.device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
            torch.cuda.set_device(self.device)

    def share(self, count: int) -> range:
        """The numbers of the batches that this process takes, of ``count``: each is taken once."""
        return range(self.rank, count, self.size)

    @property
    def done(self) -> int:
        """Samples that all processes have finished."""
        return self._store.add(_DONE, 0)

    def hand_in(self, number: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Give the finished samples of batch ``number`` to all.

        Raises:
            Stopped, Interrupted: another process has stopped, or was asked to.
        """
        self._check()
        self._store.set(f'batch {number}', json.dumps(samples))
        self._store.add(_DONE, len(samples))

    def collect(self, count: int) -> Iterator[list[dict[str, Any]]]:
        """The samples of all ``count`` batches in order, each as soon as it is there.

        Raises:
            Stopped, Interrupted: another process has stopped, or was asked to.
        """
        for number in range(count):
            while not self._store.check([f'batch {number}']):
                self._check()
                time.sleep(_PAUSE)
            yield json.loads(self._store.get(f'batch {number}'))

    def stop(self, reason: str = '', signal: int = 0) -> bool:
        """Let all others stop as well, for a reason or since this one got a ``signal``, as if they had got it; returns
        whether this process is the first to stop."""
        first = self._store.add(f'{_STOPPED} processes', 1) == 1
        if first:
            self._store.set(_STOPPED, json.dumps([f'process {self.rank}: {reason}', signal]))
        return first

    def timing(self, seconds: float, sentences: int) -> dict[str, Any]:
        """``timing`` of the results: all that may differ between two runs."""
        name = 'CPU' if self.device.type == 'cpu' else torch.cuda.get_device_name(self.device)
        return dict(seconds=round(seconds, 3), sentences_per_second=round(sentences / seconds, 3),
                    processes=self.size, device=name)

    def _check(self) -> None:
        if self._store.check([_STOPPED]):
            reason, signal = json.loads(self._store.get(_STOPPED))
            raise Interrupted(signal) if signal else Stopped(reason)
