"""What is counted while pip works, with a command that says and does what pip does; and pip itself, refusing."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llava_sam2.progress import Progress

PIP = '''
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
for name in 'abc':
    print(f'Collecting {name}==1.0', flush=True)
    print('  Using cached', name, flush=True)
time.sleep(0.3)
for name in 'abc':
    (folder / f'{name}-1.0.dist-info').mkdir()
    (folder / f'{name}-1.0.dist-info' / 'RECORD').write_text('')
print('Successfully installed', flush=True)
sys.exit(int(sys.argv[2]))
'''


@pytest.fixture(scope='module')
def install_packages(checkout):
    spec = importlib.util.spec_from_file_location('install_packages', checkout / 'tools/install_packages.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Seen(Progress):
    def __init__(self):
        super().__init__(6, 'installing', file=io.StringIO())
        self.counts = []

    def set(self, done):
        super().set(done)
        self.counts.append(done)


def test_packages_count_twice(install_packages, tmp_path, monkeypatch):
    monkeypatch.setattr(install_packages, '_LOOK', 0.05)
    (tmp_path / 'pip-1.dist-info').mkdir()
    (tmp_path / 'pip-1.dist-info' / 'RECORD').write_text('')
    progress = Seen()
    status = install_packages.install([sys.executable, '-c', PIP, str(tmp_path), '0'], 3, tmp_path, progress)
    assert status == 0
    assert progress.counts == sorted(progress.counts) and {1, 2, 3, 6} <= set(progress.counts)


def test_the_status_is_pips(install_packages, tmp_path):
    command = [sys.executable, '-c', PIP, str(tmp_path), '3']
    assert install_packages.install(command, 3, tmp_path, Seen()) == 3


def test_lines_of_the_lock(install_packages, checkout):
    lock = checkout / 'requirements/lock.txt'
    lines = [line for line in lock.read_text().splitlines() if line and not line.startswith('#')]
    assert install_packages.packages_of(lock) == len(lines) > 100


def test_pip_refuses(checkout, tmp_path):
    (tmp_path / 'lock.txt').write_text('no-such-package-of-dual-loop==1.0\n')
    done = subprocess.run([sys.executable, checkout / 'tools/install_packages.py', tmp_path / 'lock.txt'],
                          capture_output=True, text=True, env=dict(PIP_NO_INDEX='1', PATH='/usr/bin:/bin'))
    assert done.returncode == 1 and 'no-such-package-of-dual-loop==1.0' in done.stderr
    done = subprocess.run([sys.executable, checkout / 'tools/install_packages.py', tmp_path / 'none.txt'],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f'install_packages: {Path(tmp_path / "none.txt")} is not there\n')


@pytest.mark.parametrize('number, status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_pip_does_not_outlive_it(checkout, tmp_path, number, status):
    """In a virtual environment whose pip waits."""
    (tmp_path / 'pip').mkdir()
    (tmp_path / 'pip/__init__.py').write_text('')
    (tmp_path / 'pip/__main__.py').write_text('import os, time\nopen("pid", "w").write(str(os.getpid()))\n'
                                              'time.sleep(600)\n')
    (tmp_path / 'lock.txt').write_text('a==1\n')
    process = subprocess.Popen([sys.executable, checkout / 'tools/install_packages.py', 'lock.txt'], cwd=tmp_path,
                               env=os.environ | dict(PYTHONPATH=str(tmp_path)), stderr=subprocess.PIPE, text=True,
                               # A job in the background of a shell ignores Ctrl-C, and so would what it starts.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    end = time.monotonic() + 60
    while not (tmp_path / 'pid').is_file() or not (tmp_path / 'pid').read_text():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and 'Traceback' not in said
    assert not psutil.pid_exists(int((tmp_path / 'pid').read_text()))
