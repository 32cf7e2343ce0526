"""Worker processes for one job: signals are left to the process that started them, which never leaves one behind."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from .stop import end_with_parent


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool for the block; when the block ends early, so do its processes, whatever they are doing.

    They are started by fork, like the workers of a data loader: the other ways would import the caller's main module
    again.
    """
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context('fork'), initializer=_start)
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):  # it would wait for their work, which may hang
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    # A terminal and many launchers signal the whole process group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
