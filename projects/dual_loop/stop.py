"""Stopping on SIGTERM and Ctrl-C: every rank leaves the same step, and nothing half done is kept."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist

#: Exit status of a run that was asked to stop and saved its state: what a shell shows for SIGTERM, 128 + 15.
EXIT_STATUS = 128 + signal.SIGTERM
#: The signals that ask a process to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds in which another one is a copy of the first: launchers and clusters signal a process and its whole group.
ECHO = 2.0
_PR_SET_PDEATHSIG = 1  # of prctl(2)


class StopRequested(BaseException):
    """This process was asked to stop; raised where the running work can be abandoned, caught by the loop.

    Like ``KeyboardInterrupt`` no ``Exception``, because it may arrive in the middle of code that catches those.
    """


class StopAgreed(Exception):
    """All ranks know that one of them has to stop; the state after the last finished step is the one to keep."""


class CannotGoOn(RuntimeError):
    """This process cannot take another step, but its state is whole; one sentence with the remedy."""


class Interrupted(SystemExit):
    """A process without a state to save was asked to stop. Uncaught it is one line, and status 1.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        name = signal.Signals(number).name
        super().__init__(f'{Path(sys.argv[0]).stem}: interrupted by {name} while no training step ran; nothing was '
                         'saved')
        self.name, self.number = name, number


class _OnSignals(AbstractContextManager):
    """While the block runs, the first of :data:`SIGNALS` is handled by ``first``; one after more than :data:`ECHO`
    seconds ends this process at once, with all that it started. Those between are taken for copies of the first."""

    def __init__(self, first: Callable[[int], None]):
        self._first = first
        self._owner = os.getpid()
        self._since: float | None = None

    def __enter__(self) -> None:
        self._previous = [signal.signal(number, self._handle) for number in SIGNALS]

    def __exit__(self, kind, error, _) -> None:
        if isinstance(error, Interrupted):  # this process is about to end; its farewell is not cut by copies
            return
        for number, handler in zip(SIGNALS, self._previous):
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a process forked from it
            return
        if self._since is None:
            self._since = time.monotonic()
            self._first(number)
        elif time.monotonic() - self._since > ECHO:
            end_at_once(number)


def end_at_once(number: int) -> NoReturn:
    """End this process as the signal would by itself, and before it the processes that it started."""
    for child in multiprocessing.active_children():
        child.kill()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # not reached: the signal is pending for this thread


def interruptible() -> AbstractContextManager[None]:
    """Raise :class:`Interrupted` on the first SIGINT or SIGTERM, wherever this process is; a later one ends it."""
    return _OnSignals(_interrupt)


def interrupt_from_now_on() -> None:
    """As :func:`interruptible` until the process ends; does nothing where SIGTERM has a handler already."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        _OnSignals(_interrupt).__enter__()


def _interrupt(number: int) -> NoReturn:
    raise Interrupted(number)


def end_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when the one that started it ends, however that came. Linux only."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def end_with_launcher() -> None:
    """Let a rank of torchrun stop as on SIGTERM when torchrun is killed: nobody else would end it."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent(signal.SIGTERM)


def run_command(main: Callable[[], int | None], name: str | None = None) -> NoReturn:
    """Run the ``main`` of a tool and exit with its status; SIGINT or SIGTERM end it with one line and 128 + number.

    The line begins with ``name``, by default that of the script.
    """
    name = name or Path(sys.argv[0]).stem
    try:
        with interruptible():
            status = main()
    except Interrupted as error:
        print(f'{name}: interrupted by {error.name}', file=sys.stderr)
        status = 128 + error.number
    sys.exit(status)


def is_lost_rank(error: Exception) -> bool:
    """Whether an error of a collective says that another rank is gone, or did not answer in time."""
    return isinstance(error, dist.DistError) or 'gloo' in str(error)  # whose errors are plain ones


class StopSignal:
    """Notes SIGTERM and SIGINT and lets all ranks act on them at the same place; a context manager.

    The handler sets a flag, so an optimizer step or a checkpoint that is being written is never cut. Work that can be
    abandoned (decoding, the passes of a step) calls :meth:`poll`, and a wait stands in a block of :meth:`abandonable`,
    which the signal ends; ranks settle the matter in :meth:`raise_if_agreed`, a collective, because one that has left a
    step alone would leave the others waiting in it.

    Attributes:
        requested: whether this process was asked to stop.
        failure: why this process cannot go on, without having been asked: a sentence.
        failed: once all agree, whether any of them cannot go on.
    """

    def __init__(self):
        self.requested = False
        self.failure: str | None = None
        self.failed = False
        self._abandonable = False
        self._signals = _OnSignals(self._note)

    def __enter__(self) -> 'StopSignal':
        self._signals.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._signals.__exit__(*error)

    def _note(self, number: int) -> None:
        self.requested = True
        if self._abandonable:
            raise StopRequested

    def poll(self) -> None:
        """Raise :class:`StopRequested` if this process was asked to stop."""
        if self.requested:
            raise StopRequested

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """Let the signal raise :class:`StopRequested` anywhere in the block, also in a system call that waits.

        Nothing that it may cut can be used again but to end it.
        """
        self._abandonable = True
        try:
            self.poll()
            yield
        finally:
            self._abandonable = False

    @contextmanager
    def noting(self) -> Iterator[None]:
        """End the block, instead of this process, on :class:`StopRequested` and :class:`CannotGoOn`.

        What follows must be :meth:`raise_if_agreed`, where the other ranks come by.
        """
        try:
            yield
        except StopRequested:
            pass
        except CannotGoOn as error:
            self.failure = str(error)

    def raise_if_agreed(self, device: torch.device | str) -> None:
        """Raise :class:`StopAgreed` on all ranks if any has to stop. Every rank must call it equally often.

        Args:
            device: where the collective's tensor lies; the model's.
        """
        reason = 2 if self.failure else int(self.requested)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            flag = torch.tensor(float(reason), device=device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            reason = int(flag)
        self.failed = reason == 2
        if reason:
            self.requested = True
            raise StopAgreed
