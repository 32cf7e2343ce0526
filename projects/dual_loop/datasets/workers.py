"""The worker processes of a data loader: how they take signals, how their batches are waited for, how they end."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from multiprocessing.queues import Queue
from typing import Any

import cv2
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from dual_loop.stop import CannotGoOn

#: Seconds to wait for a batch unless a config says otherwise.
LOADER_TIMEOUT = 600


class BrokenLoader(CannotGoOn):
    """No batch will come from a loader: one sentence with its name and the remedy."""


class _Expired(BaseException):
    """A wait has taken too long. Code that is waited for may catch every ``Exception``."""


class AwaitedLoader:
    """A data loader whose every wait for a batch has an end, and can be abandoned; all else is the loader's own.

    torch's ``timeout`` does not cover a worker that stops while it hands a batch over. Workers that are not persistent
    end with the pass over the data, those that are with :meth:`end`. Each has one thread of torch and one of OpenCV.

    Args:
        loader: any data loader.
        name: of the loader, for errors.
        timeout: seconds to wait for a batch at most; 0 for no limit. The loader's own goes before.
        abandonable: gives the block that a wait stands in, see ``StopSignal.abandonable``.
    """

    def __init__(self, loader: DataLoader, name: str, timeout: float = LOADER_TIMEOUT,
                 abandonable: Callable[[], AbstractContextManager] = nullcontext):
        self.loader, self.name, self.abandonable = loader, name, abandonable
        self.timeout = loader.timeout or timeout
        if not isinstance(loader.worker_init_fn, partial) or loader.worker_init_fn.func is not _start_worker:
            loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """One pass over the data.

        Raises:
            BrokenLoader: no batch within the time, a worker was killed, or a batch was lost on its way.
        """
        again = getattr(self.loader, '_iterator', None)  # its workers answer before they go on
        iterator = None
        try:
            with self._waiting(again):
                if self.loader.num_workers and cv2.getNumThreads() > 1:
                    cv2.setNumThreads(1)  # workers take it over, and after a fork it could not be set
                iterator = iter(self.loader)
                _leave_deaths_to_the_wait(iterator)
            while True:
                with self._waiting(iterator):
                    try:
                        batch = next(iterator)
                    except StopIteration:
                        return
                yield batch
        finally:
            if iterator is not None and not self.loader.persistent_workers:
                _end(iterator)

    def end(self) -> None:
        """End persistent workers at once."""
        if (iterator := getattr(self.loader, '_iterator', None)) is not None:
            _end(iterator)
            self.loader._iterator = None

    @contextmanager
    def _waiting(self, iterator: Any) -> Iterator[None]:
        try:
            # Starting workers is quick, and one that is cut off between its start and its entry in a list is lost.
            with self.abandonable() if iterator is not None else nullcontext(), _time_limit(self.timeout):
                yield
        except _Expired:
            raise BrokenLoader(
                f'no batch came from the loader of {self.name} within {self.timeout:g} s: its workers hang or wait for '
                'a disk. Look at the disk, raise num_workers, or raise train_cfg.loader_timeout (--loader-timeout of '
                'an evaluation)') from None
        except _LostBatch as error:
            raise BrokenLoader(
                f'a worker of the loader of {self.name} could not hand its batch over ({error}). With little shared '
                'memory (/dev/shm) start the container with --ipc=host or a larger --shm-size; fewer workers need '
                'less, and num_workers=0 needs none') from None
        except (RuntimeError, OSError, EOFError):
            # torch finds out too, in a sentence without the name of the loader, or stumbles over the closed connection.
            dead = [worker.exitcode for worker in getattr(iterator, '_workers', ()) if worker.exitcode]
            if not dead:
                raise
            raise BrokenLoader(f'a worker of the loader of {self.name} {_cause_of_death(dead[0])}') from None


def _cause_of_death(status: int) -> str:
    if status > 0:
        return f'ended with status {status}; num_workers=0 shows why'
    name = signal.Signals(-status).name
    if name == 'SIGBUS':
        return (f'was killed by {name}: shared memory (/dev/shm) may be too small; start the container with --ipc=host '
                'or a larger --shm-size, or set fewer workers')
    return f'was killed by {name}; SIGKILL often means that memory ran out: lower num_workers or batch_size'


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`_Expired` when the block takes longer, also in a system call that waits.

    In the main thread only: Python gives signals to no other, where there is no limit then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGALRM, expire)
    # Once more every second, should the first one meet a finalizer, whose exceptions Python drops.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _leave_deaths_to_the_wait(iterator: Any) -> None:
    """Keep torch from raising wherever the main process is when a worker dies, in the middle of a step for example."""
    if getattr(iterator, '_worker_pids_set', False):
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def _end(iterator: Any) -> None:
    """Kill the workers: they hold nothing, and torch would wait five seconds for each one that is busy or stopped."""
    _leave_deaths_to_the_wait(iterator)
    for worker in getattr(iterator, '_workers', ()):
        worker.kill()
    if hasattr(iterator, '_shutdown_workers'):
        iterator._shutdown_workers()


def _start_worker(prepare: Callable[[int], None] | None, worker: int) -> None:
    """Let a worker outlive what is sent to whole process groups: Ctrl-C, and one SIGTERM. Its process ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    # Python prints an error and drops what could not be sent, and the main process would wait for it for ever.
    Queue._on_queue_feeder_error = _send_error_instead  # type: ignore[attr-defined]
    if prepare is not None:
        prepare(worker)


class _LostBatch(Exception):
    """What a worker could not send."""


class _LostBatchNote(ExceptionWrapper):
    """Raises :class:`_LostBatch` where torch would give the batch."""

    def __init__(self, reason: str):
        self.reason = reason

    def reraise(self):
        raise _LostBatch(self.reason)


def _send_error_instead(queue: Queue, error: Exception, lost: tuple[int, Any]) -> None:
    number, batch = lost
    if isinstance(batch, _LostBatchNote):
        raise error
    queue.put((number, _LostBatchNote(str(error).partition('\n')[0])))
