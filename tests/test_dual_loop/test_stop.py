"""SIGTERM and Ctrl-C set a flag; what they may interrupt raises at its own place, a wait wherever it is."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from dual_loop import stop as stop_module
from dual_loop.stop import EXIT_STATUS, CannotGoOn, Interrupted, StopAgreed, StopRequested, StopSignal, interruptible


def test_nothing_happens_without_a_signal():
    with StopSignal() as stop:
        stop.poll()
        stop.raise_if_agreed('cpu')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_raises_where_asked(number):
    with StopSignal() as stop:
        os.kill(os.getpid(), number)
        with pytest.raises(StopRequested):
            stop.poll()
        with pytest.raises(StopAgreed):
            stop.raise_if_agreed('cpu')
    assert EXIT_STATUS == 143


def test_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), StopSignal():
        assert signal.getsignal(signal.SIGTERM) != before
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_process_survives_the_signal_of_its_group():
    with StopSignal() as stop:
        child = os.fork()
        if child == 0:  # what a data loader's worker inherits
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(int(stop.requested))
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 and not stop.requested


def test_a_wait_ends_where_it_is():
    """Also in a call that waits for ever, in code that catches every ``Exception``; what follows is shielded again."""
    reader, writer = os.pipe()
    with StopSignal() as stop:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(StopRequested), stop.abandonable():
            try:
                os.read(reader, 1)
            except Exception:
                pytest.fail('it was caught')
        stop._note(signal.SIGTERM)
        with pytest.raises(StopRequested), stop.abandonable():  # no wait is begun any more
            os.read(reader, 1)
    os.close(reader), os.close(writer)


def test_what_cannot_go_on_is_agreed_as_a_failure():
    with StopSignal() as stop:
        with stop.noting():
            raise CannotGoOn('no data')
        with pytest.raises(StopAgreed):
            stop.raise_if_agreed('cpu')
        assert stop.failed and stop.failure == 'no data'
    with StopSignal() as stop:
        with stop.noting():
            raise StopRequested
        stop._note(signal.SIGTERM)
        with pytest.raises(StopAgreed):
            stop.raise_if_agreed('cpu')
        assert not stop.failed
    with pytest.raises(ValueError), StopSignal() as stop, stop.noting():
        raise ValueError('an error of another kind stays one')


def test_copies_of_the_signal_count_as_one(monkeypatch):
    """Launchers signal a process and its group; only what comes later is a second wish."""
    ended, now = [], [100.0]
    monkeypatch.setattr(stop_module, 'end_at_once', ended.append)
    monkeypatch.setattr(stop_module.time, 'monotonic', lambda: now[0])
    with StopSignal() as stop:
        for moment in (100.0, 100.0, 101.9):
            now[0] = moment
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and not ended
        now[0] = 102.1
        os.kill(os.getpid(), signal.SIGINT)
    assert ended == [signal.SIGINT]


def test_interruptible_raises_once():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (pytest.raises(Interrupted, match='interrupted by SIGINT while no training step ran') as caught,
              interruptible()):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except Exception:
                pytest.fail('it was caught')
        assert caught.value.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGTERM)  # a copy does not cut the farewell
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_second_signal_ends_the_process_and_what_it_started():
    """In the middle of what must not be cut by the first one."""
    script = """
import multiprocessing, signal, time
from dual_loop import stop
stop.ECHO = 0.1
child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,), daemon=True)
child.start()
with stop.StopSignal():
    print(child.pid, flush=True)
    for _ in range(600):
        time.sleep(1)
"""
    process = subprocess.Popen([sys.executable, '-c', script], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    child = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT and not said
    end = time.monotonic() + 10  # a busy machine takes a moment to end it
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)
