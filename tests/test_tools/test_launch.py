"""The launcher on processes that do nothing but take signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dual_loop.stop import ECHO

CHECKOUT = Path(__file__).resolve().parents[2]
#: Makes the file `r` when it is ready, r the rank.
READY = '''
import os, signal, subprocess, sys, time
rank = int(os.environ['RANK'])

def is_ready():
    open(str(rank), 'w').close()

'''


@pytest.fixture
def launch(tmp_path):
    """Start two processes of a script; waits until both are ready."""
    started = []

    def start(script: str, wait: bool = True) -> subprocess.Popen:
        (tmp_path / 'script.py').write_text(READY + script)
        command = [sys.executable, CHECKOUT / 'tools/launch.py', '--standalone', '--nproc_per_node', '2',
                   tmp_path / 'script.py']
        process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, text=True, stderr=subprocess.PIPE,
                                   env=os.environ | dict(PYTHONPATH=str(CHECKOUT / 'projects'), OMP_NUM_THREADS='1'))
        started.append(process)
        while wait and not ((tmp_path / '0').exists() and (tmp_path / '1').exists()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def test_a_stopped_run_has_the_status_of_its_processes(launch):
    """Both get the signal, one only, though the launcher gets two; one ends long before the other has."""
    process = launch('''
signals = []
signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
is_ready()
while not signals:
    time.sleep(0.01)
time.sleep(0.7)
assert len(signals) == 1
time.sleep(0.7)  # torchrun ends the other one when this one has gone
sys.exit(143)
''')
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143 and not said


def test_143_is_not_said_where_nothing_was_saved(launch):
    process = launch('is_ready()\ntime.sleep(60)')
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.splitlines() == [f'launch: process {rank} was ended by SIGTERM' for rank in (0, 1)]


def test_the_second_signal_ends_all(launch, tmp_path):
    """Processes that ignore the first one, and what they have started."""
    process = launch('''
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
is_ready()
time.sleep(600)
''')
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) >= 4
    process.send_signal(signal.SIGINT)
    time.sleep(ECHO + 0.2)
    assert process.poll() is None and all(each.is_running() for each in others)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and 'ended by SIGKILL' in said and 'Traceback' not in said
    assert not psutil.wait_procs(others, timeout=5)[1]


def test_a_failed_process_gives_its_status(launch):
    process = launch('is_ready()\nif rank:\n    sys.exit(3)\ntime.sleep(600)', wait=False)
    process.communicate(timeout=60)
    assert process.returncode == 3


def test_processes_stop_when_the_launcher_is_killed(launch, tmp_path):
    process = launch('''
from dual_loop.stop import end_with_launcher

def stop(*_):
    open(f'stopped{rank}', 'w').close()
    sys.exit()

signal.signal(signal.SIGTERM, stop)
end_with_launcher()
is_ready()
time.sleep(600)
''')
    ranks = psutil.Process(process.pid).children()
    process.kill()
    assert not psutil.wait_procs(ranks, timeout=20)[1]
    assert (tmp_path / 'stopped0').exists() and (tmp_path / 'stopped1').exists()
