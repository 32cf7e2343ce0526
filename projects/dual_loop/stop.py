"""Stopping on SIGTERM: every rank leaves the same step, and nothing half done is kept."""

import os
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

#: Exit status of a run that was asked to stop and saved its state: what a shell shows for SIGTERM, 128 + 15.
EXIT_STATUS = 128 + signal.SIGTERM


class StopRequested(Exception):
    """This process was asked to stop; raised where the running step can be abandoned, caught by the loop."""


class StopAgreed(Exception):
    """All ranks know that one of them was asked to stop; the state after the last finished step is the one to keep."""


def shield_workers(dataloader: DataLoader) -> None:
    """Let the workers of a loader outlive one SIGTERM; a second one ends them, as does their process when it exits.

    Launchers signal whole process groups. torch's workers die of it, and the main process then dies of their death.
    """
    dataloader.worker_init_fn = partial(_start_worker, dataloader.worker_init_fn)


def _start_worker(prepare: Callable[[int], None] | None, worker: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if prepare is not None:
        prepare(worker)


class StopSignal:
    """Notes SIGTERM and lets all ranks act on it at the same place.

    The handler only sets a flag, so an optimizer step or a checkpoint that is being written is never cut. Work that can
    be abandoned (decoding, the passes of a step) calls :meth:`poll`; ranks settle the matter in
    :meth:`raise_if_agreed`, a collective, because one that has left a step alone would leave the others waiting in it.
    """

    def __init__(self):
        self.requested = False
        self._owner = os.getpid()
        self._previous = None

    def __enter__(self) -> 'StopSignal':
        self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._owner:  # and not a process forked from it
            self.requested = True

    def poll(self) -> None:
        """Raise :class:`StopRequested` if this process was asked to stop."""
        if self.requested:
            raise StopRequested

    def raise_if_agreed(self, device: torch.device | str) -> None:
        """Raise :class:`StopAgreed` on all ranks if any was asked to stop. Every rank must call it equally often.

        Args:
            device: where the collective's tensor lies; the model's.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            flag = torch.tensor(float(self.requested), device=device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            self.requested = bool(flag)
        if self.requested:
            raise StopAgreed
