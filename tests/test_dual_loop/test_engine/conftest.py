"""Runs of the real training command in processes of their own; see ``tests/ranks``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

CHECKOUT = Path(__file__).resolve().parents[3]
RUN_CASES = CHECKOUT / 'tests' / 'ranks' / 'run_cases.py'
#: Seconds per case, and for imports, after which the processes are taken to hang; they need a tenth of it.
PATIENCE = dict(case=20, imports=240)


@pytest.fixture(scope='session')
def saved_samples(make_sample, tmp_path_factory) -> Path:
    """Masks without captions, human sentences and frame pairs for loop 1, descriptions for loop 2.

    Of ``loop1_objects`` most samples have several objects. Three and two batches of four each, so that six steps of one
    micro-batch are two and three epochs.
    """
    descriptions = ('A small red circle with white stripes.', 'A dog. It is big.', 'a cat', 'it stands on a mat')

    def loop1(empty: bool) -> list[dict]:
        return [make_sample(key, caption='red circle' if key % 3 == 2 else None, pair=key % 4 == 0,
                            empty=empty and key % 2 == 1) for key in range(12)]

    def loop2(empty: bool) -> list[dict]:
        return [make_sample(50 + key, caption=descriptions[key % 4], describes=True, empty=empty and key % 2 == 1)
                for key in range(8)]

    objects = [make_sample(key, caption='red circle' if key % 3 == 2 else None, pair=key % 4 == 0,
                           others=(None, 'a dog', None)[:key % 4]) for key in range(12)]
    path = tmp_path_factory.mktemp('samples') / 'samples.pt'
    torch.save(dict(loop1=loop1(False), loop1_of_8=loop1(False)[:8], loop1_odd_empty=loop1(True), loop1_objects=objects,
                    loop2=loop2(False), loop2_odd_empty=loop2(True)), path)
    return path


@pytest.fixture(scope='session')
def launch_cases(network_sizes, saved_samples):
    """Start launches side by side, each a list of cases for some processes, and wait for them.

    ``launch_cases(out, (cases, processes), ...)`` leaves what each case wrote in ``out/<name of the case>``. A launch
    that ends with another status than ``status`` fails the test.
    """

    def launch(out: Path, *launches: tuple[list[dict], int], status: int = 0) -> None:
        running = []
        for number, (cases, processes) in enumerate(launches):
            file = out / f'launch{number}-{cases[0]["name"]}.json'
            file.write_text(json.dumps(dict(sizes=network_sizes, samples=str(saved_samples), cases=cases)))
            torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
            command = [sys.executable, *(torchrun if processes > 1 else []), str(RUN_CASES), str(file), str(out)]
            log = file.with_suffix('.log')
            running.append((log, start(command, log)))
        patience = PATIENCE['imports'] + PATIENCE['case'] * max(len(cases) for cases, _ in launches)
        for log, process in running:
            try:
                ended = process.wait(patience)
            except subprocess.TimeoutExpired:
                ended = 'none: it hangs'
            finally:
                end(process)
            if ended != status:
                for _, other in running:
                    end(other)
                pytest.fail(f'{log.stem} ended with status {ended}:\n{log.read_text(errors="replace")[-6000:]}')

    return launch


def start(command: list[str], log: Path) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}
    environment |= dict(PYTHONPATH=str(CHECKOUT / 'projects'), CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    return subprocess.Popen(command, env=environment, cwd=log.parent, stdout=log.open('w'), stderr=subprocess.STDOUT)


def end(process: subprocess.Popen) -> None:
    """Kill a launch with all its processes, if it still runs; torchrun gives each a session of its own."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait()
