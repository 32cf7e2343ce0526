"""A step without memory against the same step with it, on a CPU."""

from contextlib import ExitStack

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from dual_loop.datasets import collate_samples
from dual_loop.estimate import step as shadow_step
from dual_loop.estimate.as_on_gpu import HostReads, attention
from dual_loop.estimate.batches import shadow_batch
from dual_loop.estimate.live_memory import LiveMemory
from dual_loop.estimate.shadow import EveryWord, empty
from dual_loop.estimate.step import ShadowStep

ROWS = 3


def real_batch(model, loop, rows):
    """The same batch with memory; masks are full."""
    batch = shadow_batch(model, loop, rows)
    return {name: torch.ones(value.shape, dtype=value.dtype) if isinstance(value, FakeTensor) else value
            for name, value in batch.items()}


@pytest.fixture
def on_cpu(monkeypatch):
    """The shadow takes the ways of the CPU."""
    monkeypatch.setattr(shadow_step, 'as_on_gpu', HostReads)


@pytest.mark.parametrize('base', [{}, dict(checkpointing=True)])
@pytest.mark.parametrize('loop', ['loop1', 'supervised'])
def test_peak_is_that_of_the_real_step(pair, on_cpu, base, loop):
    real, shadow = pair(loops=[dict(type='MaskLoop', max_caption_len=12, topk=8), dict(type='SupervisedLoop')], **base)
    real.teacher = EveryWord(real.base.vocabulary)
    [moment] = [each for each in ShadowStep(shadow).moments(ROWS) if each.loop == loop]
    data = real_batch(real, real.loops[loop], ROWS)
    known = [value for value in data.values() if isinstance(value, torch.Tensor)]
    with LiveMemory(known=[*real.parameters(), *real.buffers()], real=True) as memory:
        for value in known:
            memory.see(value)
        output = real(data, dict(step=0), mode=loop)
        torch.autograd.grad(output['loss'], list(real.trainables().values()), allow_unused=True)
    assert moment.bytes == pytest.approx(memory.peak, rel=0.03)
    assert sum(moment.kinds.values()) == moment.bytes


def test_layers_that_stand_in_keep_what_real_ones_do(pair, monkeypatch):
    _, shadow = pair()
    step = ShadowStep(shadow)
    standing_in = step.moments(ROWS)
    monkeypatch.setattr(shadow_step, 'two_layers_run', lambda layers, memory: ExitStack())
    for one, other in zip(standing_in, ShadowStep(shadow).moments(ROWS)):
        assert one.bytes == pytest.approx(other.bytes, rel=0.01)


def test_compiled_layers_keep_less_and_a_budget_still_less(pair):
    peaks = {}
    for name, base in dict(plain={}, compiled=dict(compile=True), third=dict(compile=True, memory_budget=0.3),
                           again=dict(checkpointing=True)).items():
        base = dict(base, lora=dict(r=2, alpha=4, dropout=0.1))
        _, shadow = pair(**base) if 'compile' not in base else (None, compiled_shadow(pair, base))
        peaks[name] = ShadowStep(shadow).moments(8)[0].bytes
    assert peaks['plain'] > peaks['compiled'] > peaks['third'] > peaks['again']


def compiled_shadow(pair, base):
    """Only the shadow: the real one's layers would wait for inductor."""
    _, shadow = pair(**{key: value for key, value in base.items() if key not in ('compile', 'memory_budget')})
    shadow.base.compiled, shadow.base.memory_budget = True, base.get('memory_budget', 1.0)
    return shadow


def test_a_second_micro_batch_holds_the_gradients_of_the_first(pair):
    _, shadow = pair()
    one, two = (ShadowStep(shadow, accumulation).moments(ROWS)[0].bytes for accumulation in (1, 2))
    assert two > one


def test_a_batch_has_the_keys_of_a_collated_one(pair):
    _, shadow = pair()
    ground, grid, size = 128, shadow.base.config.region_grid, shadow.base.config.image_size
    sample = dict(source='x', sample_id='x', describes=True, caption='a', image_key='k', kind=None,
                  pixel_values=torch.zeros(3, size, size), masks=torch.zeros(ground, ground, dtype=torch.bool),
                  g_pixel_values=torch.zeros(3, ground, ground, dtype=torch.uint8),
                  prompt_masks=torch.zeros(grid, grid, dtype=torch.bool))
    real, made = collate_samples([sample]), shadow_batch(shadow, shadow.loops['loop2'], 1)
    assert real.keys() == made.keys()
    for name, value in real.items():
        if isinstance(value, torch.Tensor):
            assert (value.shape, value.dtype) == (made[name].shape, made[name].dtype), name
    pairs = shadow_batch(shadow, shadow.loops['loop1'], 4)
    assert len(pairs['pixel_values']) == 6 and pairs['captions'] == [None] * 4


def test_attention_keeps_no_scores_where_a_gpu_would_not():
    query, key = empty(2, 4, 64, 16, dtype=torch.bfloat16), empty(2, 2, 64, 16, dtype=torch.bfloat16)
    with LiveMemory(known=[query, key]) as memory:
        out = attention(query, key, key, is_causal=True, enable_gqa=True)
    assert out.shape == query.shape and memory.peak < 2 * 4 * 64 * 64 * 2
