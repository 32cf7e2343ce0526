"""Runs of the proof as processes side by side, until all are done or the time is over."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from dual_loop.engine.resume import latest_checkpoint
from llava_sam2.paths import write_whole

from .plan import Run
from .results import read_result

#: Seconds between two looks at what runs, and that a run has to save its state when the time is over.
LOOK, SAVING = 0.2, 60.0


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    if (named := os.environ.get('CUDA_VISIBLE_DEVICES')) is None:
        return [*map(str, range(torch.cuda.device_count()))]
    return [name for name in named.split(',') if name]


class Proof:
    """Starts runs that have no result yet, some at a time, and writes the result of each that has ended.

    Args:
        root: of the checkout.
        work_dir: folder of the runs' own ones. A run whose folder has a checkpoint goes on from it.
        results: folder of the results, ``<name of the run>.json``.
    """

    def __init__(self, root: Path, work_dir: Path, results: Path):
        self.root, self.work_dir, self.results = root, work_dir, results
        self._running: dict[Run, subprocess.Popen] = {}
        self._gpus: dict[Run, str] = {}

    def result(self, run: Run) -> Path:
        """Where the result of a run is, or will be."""
        return self.results / f'{run.name}.json'

    def go(self, runs: Sequence[Run], jobs: int, seconds: float) -> tuple[int, int]:
        """Runs that are left, the time being over, and runs that failed, which are named with the end of their log.

        Args:
            runs: in this order; what has a result is left out.
            jobs: processes side by side, spread over the GPUs.
            seconds: after so many no run is started, and those that run save their state and end.
        """
        end, failed = time.monotonic() + seconds, 0
        waiting = [run for run in runs if not self.result(run).exists()]
        try:
            while (waiting or self._running) and time.monotonic() < end:
                while waiting and len(self._running) < jobs:
                    run = waiting.pop(0)
                    self._running[run] = self._start(run)
                time.sleep(LOOK)
                failed += sum(not self._ended(run) for run in [*self._running] if self._running[run].poll() is not None)
            return len(waiting) + len(self._running), failed
        finally:
            self._stop()

    def _start(self, run: Run) -> subprocess.Popen:
        work_dir = self.work_dir / run.name
        work_dir.mkdir(parents=True, exist_ok=True)
        config = self.work_dir / f'{run.name}.py'
        if not config.exists():
            run.config(self.root).dump(config)
        command = [sys.executable, str(self.root / 'tools/train.py'), str(config), '--work-dir', str(work_dir)]
        with suppress(FileNotFoundError):  # then it begins
            command += ['--resume', str(latest_checkpoint(work_dir))]
        env = os.environ | dict(OMP_NUM_THREADS='1')
        if gpus := visible_gpus():
            taken = [self._gpus[other] for other in self._running]
            env['CUDA_VISIBLE_DEVICES'] = self._gpus[run] = min(gpus, key=taken.count)
        print(f'started   {run.name}', flush=True)
        with (self.work_dir / f'{run.name}.log').open('a') as log:
            return subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log, env=env)

    def _ended(self, run: Run) -> bool:
        """Whether a run that has ended did so with a result, which is written."""
        status = self._running.pop(run).returncode
        if status == 0:
            result = read_result(run, self.work_dir / run.name)
            write_whole(self.result(run), json.dumps(result) + '\n', 'the result')
            print(f'done      {run.name}  ' + '  '.join(
                f'{name} {value:.3f}' for name, value in result['after'].items() if name in SHOWN), flush=True)
            return True
        log = self.work_dir / f'{run.name}.log'
        print(f'failed    {run.name}: status {status}, see {log}\n' + '\n'.join(log.read_text().splitlines()[-5:]),
              flush=True)
        return False

    def _stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + SAVING
        for run, process in self._running.items():
            try:
                process.wait(max(0.0, end - time.monotonic()))
                print(f'suspended {run.name}', flush=True)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f'killed    {run.name}: it did not end within {SAVING:.0f} s', flush=True)
        self._running.clear()


#: Figures in the line of a run that is done.
SHOWN = ('held_out/ciou', 'held_out/ciou_new', 'cycle/accuracy_new_names', 'cycle/accuracy_all_four')
