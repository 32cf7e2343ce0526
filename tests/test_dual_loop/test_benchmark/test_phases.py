"""Phases are exclusive, and watching leaves no trace."""

import time

import torch

from dual_loop.benchmark.phases import Phases


def test_an_inner_phase_stops_the_clock_of_the_outer_one(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(time, 'perf_counter', lambda: next(now))
    phases = Phases(torch.device('cpu'))
    with phases('outer'), phases('inner'):
        pass
    assert phases.take() == dict(outer=2, inner=1) and phases.take() == {}


def test_what_is_watched_is_as_it_was(build_loops, make_batch):
    model = build_loops()
    model.teacher._static_decoder()  # made when it is first asked for
    own = dict(vars(model.base)), dict(vars(model.teacher)), torch.autograd.grad
    phases = Phases(torch.device('cpu'))
    with phases.watching(model):
        output = model(make_batch(dict(key=1), dict(key=2, pair=True)), dict(step=0), mode='loop1')
        torch.autograd.grad(output['loss'], list(model.trainables().values()), allow_unused=True)
    seconds = phases.take()
    assert seconds.keys() == {'encoders', 'teacher', 'language model', 'head', 'bridge', 'mask decoder', 'mask losses',
                              'backward'}
    assert all(value > 0 for value in seconds.values())
    assert (dict(vars(model.base)), dict(vars(model.teacher)), torch.autograd.grad) == own
