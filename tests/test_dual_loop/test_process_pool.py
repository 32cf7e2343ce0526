"""The processes of a pool do what it is for, take no signals, and never outlive the one that started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from dual_loop.process_pool import process_pool


def signal_own_process(number: int) -> int:
    os.kill(os.getpid(), number)
    return os.getpid()


def test_processes_leave_signals_to_their_owner():
    with process_pool(1) as pool:
        found = {pool.submit(signal_own_process, number).result() for number in (signal.SIGINT, signal.SIGTERM)}
    assert len(found) == 1


def test_an_early_end_does_not_wait_for_their_work():
    started = time.monotonic()
    with pytest.raises(KeyError), process_pool(2) as pool:
        for _ in range(2):
            pool.submit(time.sleep, 600)
        raise KeyError
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 60


def test_processes_end_with_their_owner():
    script = """
import multiprocessing, time
from dual_loop.process_pool import process_pool
with process_pool(2) as pool:
    work = [pool.submit(time.sleep, 600) for _ in range(2)]
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    work[0].result()
"""
    process = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True)
    children = [psutil.Process(int(number)) for number in process.stdout.readline().split()]
    assert len(children) == 2
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=10)[1]
