"""A run on two processes with loader workers, as a user starts and stops it: from a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from dual_loop.checkpoints.files import read_trained
from dual_loop.engine.resume import latest_checkpoint

pytest.importorskip('xtuner')
CHECKOUT = Path(__file__).resolve().parents[3]
RANKS = CHECKOUT / 'tests' / 'ranks'
PATIENCE = 120  # seconds until a run that hangs is given up; it needs a fifth of it


class Terminal:
    """A command in the foreground of a terminal of its own."""

    def __init__(self, command: list, cwd: Path):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env=environment(), stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.shown = ''

    def read_until(self, pattern: str | None) -> None:
        """Read what is shown until ``pattern`` is there, or until the end."""
        end = time.monotonic() + PATIENCE
        while pattern is None or not re.search(pattern, self.shown):
            assert time.monotonic() < end, f'it hangs:\n{self.shown[-4000:]}'
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    text = os.read(self._master, 65536)
                except OSError:  # Linux's way to say that nobody has the terminal any more
                    text = b''
                if not text:
                    assert pattern is None, f'it ended:\n{self.shown[-4000:]}'
                    return
                self.shown += text.decode(errors='replace').replace('\r\n', '\n')

    def press_ctrl_c(self) -> None:
        os.write(self._master, b'\x03')

    def wait(self) -> int:
        self.read_until(None)
        return self.process.wait(PATIENCE)


def processes_of(work_dir: Path) -> list[psutil.Process]:
    """All that have the folder among their arguments: launcher, ranks and their workers."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(work_dir) in ' '.join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def terminal(tmp_path):
    """Start a command; nothing of it is left when the test ends, also when it fails."""
    started = []

    def start(*command) -> Terminal:
        started.append(Terminal(list(command), tmp_path))
        return started[-1]

    yield start
    for process in processes_of(tmp_path):
        process.kill()
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def config(network_sizes, saved_samples, tmp_path):
    """Write a config with loader workers; ``options`` as in the cases of ``tests/ranks``, whose imports take long."""

    def write(**options) -> Path:
        case = dict(mode='ddp', steps=6, checkpoint_interval=100, shuffle=False, workers=1) | options
        script = ('import json, sys\nfrom pathlib import Path\nfrom tiny_training import write_config\n'
                  'case, sizes, samples, folder = map(json.loads, sys.argv[1:])\n'
                  'write_config(case, sizes, Path(samples), Path(folder))')
        arguments = [json.dumps(each) for each in (case, network_sizes, str(saved_samples), str(tmp_path / 'run'))]
        subprocess.run([sys.executable, '-c', script, *arguments], env=environment(), check=True, capture_output=True)
        (tmp_path / 'run' / 'rank1').mkdir()
        return tmp_path / 'run' / 'rank0' / 'config.py'

    return write


def environment() -> dict[str, str]:
    return os.environ | dict(
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}', VIRTUAL_ENV=sys.prefix,
        PYTHONPATH=f'{CHECKOUT / "projects"}{os.pathsep}{RANKS}', CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')


#: Read by the second process alone, in its second step.
SECOND = 7


def wait_until_they_wait(work_dir: Path) -> None:
    """Run the command of the page until the logs show one rank at its loader and the other one in the collective."""
    page = (CHECKOUT / 'docs' / 'training.md').read_text()
    command, folder = re.search(r'^(kill -USR1 .* (work_dirs/run/\w+)/rank\*\.log\))$', page, re.MULTILINE).groups()
    [log] = work_dir.glob('*/rank0.log')
    end = time.monotonic() + PATIENCE
    first = second = ''
    while 'in raise_if_agreed' not in first or 'in __next__' not in second:
        assert time.monotonic() < end, first + second
        subprocess.run(['bash', '-ec', command.replace(folder, str(log.parent))], check=True)
        time.sleep(0.5)
        first, second = (file.read_text() for file in sorted(log.parent.glob('rank*.log')))


def test_ctrl_c_saves_and_leaves_no_process(terminal, config, tmp_path):
    file = config(bad=dict(loader='train', sample=SECOND, action='sleep'), rank_log=True)
    run = terminal(CHECKOUT / 'tools' / 'dist_train.sh', file, 2, '--work-dir', tmp_path / 'run')
    run.read_until('it will sleep')
    wait_until_they_wait(tmp_path / 'run')
    running = processes_of(tmp_path)
    assert len(running) >= 5  # launcher, two ranks, a worker or more of each
    run.process.send_signal(signal.SIGUSR1)  # as the launcher would get it from pkill
    assert set(running) <= set(processes_of(tmp_path))
    run.press_ctrl_c()
    assert run.wait() == 143, run.shown
    step = read_trained(latest_checkpoint(tmp_path / 'run')).step
    assert f'the state after step {step} is saved' in run.shown and 'Traceback' not in run.shown
    assert not processes_of(tmp_path)


def test_a_signal_before_the_first_step_says_that_nothing_was_saved(terminal, config, tmp_path):
    """While a data set is opened, where indexes are made and demo data too."""
    file = config(bad=dict(loader='train', sample=None, action='sleep'))
    run = terminal(sys.executable, CHECKOUT / 'tools' / 'train.py', file, '--work-dir', tmp_path / 'run')
    run.read_until('it will sleep')
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 1  # not 143: nothing was saved
    assert run.shown.rstrip().endswith('train: interrupted by SIGTERM while no training step ran; nothing was saved')
    assert 'Traceback' not in run.shown


@pytest.mark.full
def test_ranks_of_xtuner_save_when_it_kills_torchrun(terminal, config, tmp_path, monkeypatch):
    """Its command kills what it started a quarter of a second after Ctrl-C."""
    monkeypatch.setenv('NPROC_PER_NODE', '2')
    file = config(bad=dict(loader='train', sample=SECOND, action='sleep'), rank_log=True)
    run = terminal('xtuner', 'train', file, '--work-dir', tmp_path / 'run')
    run.read_until('it will sleep')
    wait_until_they_wait(tmp_path / 'run')
    run.press_ctrl_c()
    run.wait()
    assert not psutil.wait_procs(processes_of(tmp_path), timeout=30)[1]
    step = read_trained(latest_checkpoint(tmp_path / 'run')).step
    [log] = (tmp_path / 'run').glob('*/rank0.log')
    assert f'the state after step {step} is saved' in log.read_text()


@pytest.mark.full
def test_a_rank_that_stands_still_ends_the_other(config, tmp_path):
    """In a group of ranks that DeepSpeed made, within the time-out of the config; without torchrun, which kills."""
    file = config(mode='zero2', workers=0, group_timeout=15, fault=dict(name='STOP', place='update', step=1, rank=1))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, CHECKOUT / 'tools/train.py', file, '--work-dir', tmp_path / 'run', '--deepspeed',
               'zero2_fp32', '--launcher', 'pytorch']
    first, second = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env=environment() | dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                                                  MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)))
        for rank in (0, 1)]
    try:
        said, _ = first.communicate(timeout=PATIENCE)
        assert first.returncode != 0 and second.poll() is None
        assert 'did not answer within env_cfg.dist_cfg.timeout; nothing could be saved' in said, said
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


@pytest.mark.full
def test_a_checkpoint_without_the_file_of_a_rank_ends_on_all(terminal, config, tmp_path):
    file = config(mode='zero2', steps=2, checkpoint_interval=2)
    command = [CHECKOUT / 'tools/dist_train.sh', file, 2, '--work-dir', tmp_path / 'run', '--deepspeed', 'zero2_fp32']
    run = terminal(*command)
    assert run.wait() == 0, run.shown
    [part] = (tmp_path / 'run' / 'iter_2.pth').glob('*zero_pp_rank_1_*')
    part.unlink()
    run = terminal(*command, '--resume')
    assert run.wait() == 1
    assert len(re.findall(r'iter_2.pth has no .*rank_1', run.shown)) >= 2, run.shown
