"""SIGTERM sets a flag; what it may interrupt raises at its own place."""

import os
import signal

import pytest

from dual_loop.stop import EXIT_STATUS, StopAgreed, StopRequested, StopSignal


def test_nothing_happens_without_a_signal():
    with StopSignal() as stop:
        stop.poll()
        stop.raise_if_agreed('cpu')


def test_sigterm_is_noted_and_raises_where_asked():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
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
