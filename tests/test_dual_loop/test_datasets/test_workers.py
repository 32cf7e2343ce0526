"""Workers that hang, die or lose a batch, each in a loader of its own; what a run makes of it: test_stopped_waits."""

import multiprocessing
import os
import resource
import signal
import threading
import time

import cv2
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dual_loop.datasets.workers import AwaitedLoader, BrokenLoader
from dual_loop.stop import StopRequested, StopSignal


class Items(Dataset):
    """Eight tensors of 100 kB; one calls ``what`` when it is read."""

    def __init__(self, what=None, at: int = 2):
        self.what, self.at = what, at

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.what is not None and index == self.at:
            self.what()
        return torch.full((25_000, ), float(index))


def sleep() -> None:
    time.sleep(600)


def sleep_stubbornly() -> None:
    while True:
        try:
            time.sleep(600)
        except Exception:
            continue


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def leave() -> None:
    os._exit(3)


def fill_shared_memory() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def fail() -> None:
    raise KeyError('the data set says so')


def test_the_time_out_of_the_loader_goes_before():
    loader = DataLoader(Items(sleep), num_workers=1, timeout=0.5)
    with pytest.raises(BrokenLoader, match='within 0.5 s'):
        list(AwaitedLoader(loader, 'loop 1', 20))


def awaited(what=None, workers: int = 1, timeout: float = 20, persistent: bool = False, **options) -> AwaitedLoader:
    # Its batches go to shared memory when they are handed over, as ours do.
    loader = DataLoader(Items(what), batch_size=2, num_workers=workers, persistent_workers=persistent,
                        collate_fn=torch.stack)
    return AwaitedLoader(loader, 'loop 1', timeout, **options)


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert not multiprocessing.active_children()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('persistent', [False, True])
def test_batches_are_those_of_the_loader(workers, persistent):
    loader = awaited(workers=workers, persistent=persistent and workers > 0)
    for _ in range(2):
        assert [batch[:, 0].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert len(loader) == 4 and len(loader.dataset) == 8
    loader.end()


@pytest.mark.parametrize(('what', 'workers', 'timeout', 'says'), [
    (sleep, 1, 0.5, r'no batch came from the loader of loop 1 within 0.5 s'),
    (sleep_stubbornly, 0, 0.5, r'no batch came from the loader of loop 1 within 0.5 s'),
    (stop, 2, 0.5, r'no batch came from the loader of loop 1 within 0.5 s'),
    (leave, 1, 20, r'a worker of the loader of loop 1 ended with status 3'),
    (fill_shared_memory, 1, 20, r'could not hand its batch over.*--ipc=host.*--shm-size.*num_workers=0'),
])
def test_what_will_not_come_is_one_sentence(what, workers, timeout, says):
    with pytest.raises(BrokenLoader, match=says) as caught:
        list(awaited(what, workers, timeout))
    assert '\n' not in str(caught.value)


def test_errors_of_the_data_set_stay_what_they_are():
    for workers in (0, 1):
        with pytest.raises(KeyError, match='the data set says so'):
            list(awaited(fail, workers))


def test_a_wait_is_abandoned_and_its_workers_end_at_once():
    for workers in (0, 2):
        with StopSignal() as asked:
            loader = awaited(sleep, workers, persistent=workers > 0, abandonable=asked.abandonable)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            with pytest.raises(StopRequested):
                list(loader)
            loader.end()


def test_a_worker_dies_between_two_waits():
    """torch would raise wherever the main process is then, for example in the optimizer's step."""
    loader = awaited(workers=1)
    batches = iter(loader)
    next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    time.sleep(0.1)
    with pytest.raises(BrokenLoader, match='was killed by SIGKILL'):
        list(batches)


def test_workers_outlive_the_signals_of_their_group():
    loader = awaited(workers=1)
    batches = iter(loader)
    next(batches)
    for worker in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
    assert len(list(batches)) == 3


class Threads(Dataset):
    """How many threads torch and OpenCV would take where the sample is read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([os.getpid(), torch.get_num_threads(), cv2.getNumThreads()])


def test_a_worker_has_one_thread_of_each():
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(3)
        cv2.setNumThreads(3)
        read = list(AwaitedLoader(DataLoader(Threads(), batch_size=None, num_workers=1), 'loop 1', 20))
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    assert all(pid != os.getpid() and threads == [1, 1] for pid, *threads in (each.tolist() for each in read))
