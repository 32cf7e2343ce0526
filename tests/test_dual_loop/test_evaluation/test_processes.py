"""Several processes find what one finds, and end together."""

import json
import os
import signal
import socket
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from dual_loop.datasets import RefCOCODataset
from dual_loop.evaluation.loading import load_model
from dual_loop.evaluation.predictor import Predictor
from dual_loop.evaluation.processes import Processes, Stopped
from dual_loop.evaluation.referring import evaluate_referring
from dual_loop.evaluation.results import write_results
from dual_loop.stop import Interrupted

MODEL = Path(__file__).resolve().parents[3] / 'assets/tiny'


def start(function, size: int, *arguments) -> list[int]:
    """Run ``function(rank, *arguments)`` in ``size`` processes as a launcher would; gives their exit statuses.

    Forked, since imports take longer than everything else; with one thread, which is what forks may have.
    """
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    def one(rank: int) -> None:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        torch.set_num_threads(1)
        function(rank, *arguments)

    processes = [get_context('fork').Process(target=one, args=(rank, )) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging
    return [process.exitcode for process in processes]


def evaluate(rank: int, root: Path, out: Path, slow_rank: int | None) -> None:
    class Slow(Predictor):
        def segment(self, *arguments):
            time.sleep(0.3 if rank == slow_rank else 0)
            return super().segment(*arguments)

    import dual_loop.evaluation.loading as loading

    loading.Predictor = Slow
    results = evaluate_referring(load_model(MODEL), RefCOCODataset(root, split='val'), batch_size=4, max_new_tokens=10,
                                 max_images=4, num_workers=rank % 2)
    assert (results is None) == (rank > 0)
    if results:
        write_results(out, results)


def test_any_number_of_processes_writes_the_same_file(demo_root, tmp_path):
    """26 sentences in batches of 4: seven batches, which neither two nor three processes share evenly."""
    contents = {}
    for size, slow_rank in ((1, None), (2, 1), (3, 0), (3, 2)):
        out = tmp_path / f'{size}_{slow_rank}.json'
        assert start(evaluate, size, demo_root, out, slow_rank) == [0] * size
        lines = out.read_text().splitlines()
        (timing, ) = (line for line in lines if line.startswith('"timing"'))
        assert json.loads('{' + timing.rstrip(',') + '}')['timing']['processes'] == size
        lines.remove(timing)
        contents[size, slow_rank] = lines
    assert len(json.loads(out.read_text())['samples']) == 26
    assert len({tuple(lines) for lines in contents.values()}) == 1


def test_who_learns_that_another_was_interrupted_ends_as_it_does():
    """Also where the other's signal has not come here yet."""
    processes = Processes()  # alone: its own store stands for the one of all
    assert processes.stop(signal=signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        processes.hand_in(0, [])
    assert caught.value.number == signal.SIGTERM


def stop(rank: int, out: Path) -> None:
    processes = Processes()
    if rank == 1:
        assert processes.stop('the disk is full')
        (out / 'stopped').touch()
        return
    while not (out / 'stopped').exists():
        time.sleep(0.01)
    assert not processes.stop('me too'), 'only the first reason counts'
    with pytest.raises(Stopped, match='process 1: the disk is full'):
        list(processes.collect(1)) if rank == 0 else processes.hand_in(0, [])
    (out / str(rank)).touch()
    while rank == 0 and not (out / '2').exists():  # the store is in this process
        time.sleep(0.01)


def test_all_processes_stop_with_the_reason_of_the_first(tmp_path):
    assert start(stop, 3, tmp_path) == [0, 0, 0]
    assert (tmp_path / '0').exists() and (tmp_path / '2').exists()


def test_every_batch_is_taken_once():
    taken = []
    for rank in range(3):
        processes = Processes()
        processes.rank, processes.size = rank, 3
        taken += processes.share(7)
    assert sorted(taken) == list(range(7))
