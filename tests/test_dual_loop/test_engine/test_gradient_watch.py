"""Tensors that no loss reaches are told of; those that have a reason are not."""

import pytest
import torch

from dual_loop.engine import gradient_watch
from dual_loop.engine.flat import FlatLayout
from dual_loop.engine.gradient_watch import PATIENCE, GradientWatch

NAMES = ('lora.A', 'lora.B', 'shared.dead', 'decoder.w')
#: Loop 2 does not reach the decoder.
BOTH = ('loop1', 'loop2')
GROUPS = dict(lora=dict(pattern='lora', loops=BOTH), shared=dict(pattern='shared', loops=BOTH),
              decoder=dict(pattern='decoder', loops=('loop1', )))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(gradient_watch, 'print_log', lambda message, *_: lines.append(message))
    return lines


@pytest.fixture
def watch(said):
    params = [(name, torch.nn.Parameter(torch.zeros(3))) for name in NAMES]
    return GradientWatch(FlatLayout.from_params(params, GROUPS, [['loop1'], ['loop2']]))


def gradient(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).repeat_interleave(3)


def test_a_tensor_without_gradient_is_told_of_once_by_name(watch, said):
    """The first step does not count: LoRA's A has no gradient then."""
    watch.look([gradient(0, 1, 0, 1), gradient(0, 1, 0, 0)])
    for step in range(3 * PATIENCE):
        watch.look([gradient(1, 1, 0, 1), gradient(0, 1, 0, 0)])
        assert watch.told == (['shared.dead'] if step + 1 >= PATIENCE else [])
    assert len(said) == 1 and said[0].startswith(f'1 trained tensors had a gradient of exactly zero in {PATIENCE} st')
    assert 'shared.dead. Freeze them' in said[0]


def test_one_element_in_one_step_is_enough(watch):
    first = gradient(1, 1, 0, 1)
    first[8] = 1e-38
    for step in range(3 * PATIENCE):
        watch.look([first if step == PATIENCE - 1 else gradient(1, 1, 0, 1), gradient(1, 1, 0, 0)])
    assert not watch.told


@pytest.mark.parametrize('why', ['loop 2 joins later', 'loop 2 is skipped', 'no learning rate yet'])
def test_steps_that_say_nothing_do_not_count(watch, why):
    """Only the decoder is judged by loop 1 alone."""
    second = gradient(0, 0, 0, 0) if why == 'loop 2 joins later' else gradient(1, float('nan'), 0, 0)
    if why == 'no learning rate yet':
        second = gradient(0, 1, 0, 0)
    for _ in range(3 * PATIENCE):
        watch.look([gradient(0, 1, 0, 1), second], learning=why != 'no learning rate yet')
    assert not watch.told
    for _ in range(PATIENCE + 1):
        watch.look([gradient(0, 1, 0, 1), gradient(0, 1, 1, 0)])
    assert watch.told == ['lora.A']


def test_the_excused_are_not_told_of(said):
    params = [(name, torch.nn.Parameter(torch.zeros(3))) for name in NAMES]
    watch = GradientWatch(FlatLayout.from_params(params, GROUPS, [['loop1'], ['loop2']]), lambda name: 'dead' in name)
    for _ in range(3 * PATIENCE):
        watch.look([gradient(1, 1, 0, 0), gradient(1, 1, 0, 0)])
    assert watch.told == ['decoder.w']
