"""The largest batch, and where figures of an estimate come from."""

import pytest
from mmengine.config import Config

from dual_loop.benchmark.flops import StepFlops, step_flops
from dual_loop.estimate import table
from dual_loop.estimate.cost import Estimate, largest, seconds


@pytest.fixture
def config(network_sizes):
    loader = dict(batch_size=2)
    return Config(dict(
        model=dict(base=dict(tokenizer='assets/tiny', network=network_sizes, random_weights=True,
                             lora=dict(r=2, alpha=4), loss_mask=dict(num_points=64)), max_caption_len=12, topk=8),
        train_dataloader=loader, train_cfg=dict(loop2_dataloader=dict(batch_size=3), accumulative_counts=2),
        custom_hooks=[dict(type='TeacherEMAHook')]))


def test_the_largest_batch_fits_and_one_more_does_not(config):
    estimate = Estimate(config)
    capacity = estimate.memory(3).peak + 1000
    most = estimate.largest_batch(capacity, most=6)
    assert most == 3 and set(estimate.known) >= {(('loop1', 3), ('loop2', 3)), (('loop1', 4), ('loop2', 4))}
    assert estimate.memory(most).peak <= capacity < estimate.memory(most + 1).peak
    assert estimate.largest_batch(sum(estimate.memory(3).kept.values()), most=1) == 0


@pytest.mark.parametrize('guess', [1, 7, 512])
@pytest.mark.parametrize('peak', [lambda n: 10 * n, lambda n: 5 * n + n * n, lambda n: max(300, 40 * n),
                                  lambda n: 100 * (1 << (n - 1).bit_length()), lambda n: 3000, lambda n: 1])
def test_largest(peak, guess):
    asked = []

    def counted(n):
        asked.append(n)
        return peak(n)

    assert largest(counted, 1000, guess, 512) == max([n for n in range(1, 513) if peak(n) <= 1000], default=0)
    assert len(asked) == len(set(asked)) and min(asked) >= 1 and max(asked) <= 512
    told = {n: peak(n) for n in (3, 40)}
    asked.clear()
    assert largest(counted, 1000, guess, 512, told) == max([n for n in range(1, 513) if peak(n) <= 1000], default=0)
    assert not set(asked) & {3, 40}


def test_rows_and_micro_batches_are_those_of_the_config(config):
    estimate = Estimate(config)
    assert estimate.rows == dict(loop1=2, loop2=3) and estimate.step.accumulative_counts == 2
    memory = estimate.memory(estimate.rows)
    assert memory.peak == sum(memory.kept.values()) + max(*(each.bytes for each in memory.moments), memory.optimizer)
    assert 'averages' in memory.kept and memory.kept['decoder_copy']
    config.custom_hooks = []
    assert Estimate(config).memory(2).kept['averages'] == 0
    counted, by_hand = estimate.flops(), step_flops(estimate.model, dict(loop1=4, loop2=6), 12, 2 * (2 + 1 + 3))
    assert counted == by_hand and isinstance(counted, StepFlops)


def test_captioned_samples_alone(config):
    """No loop bounds captions then, and nobody describes."""
    del config.model['max_caption_len'], config.model['topk'], config.train_cfg['loop2_dataloader']
    config.model.loops = [dict(type='SupervisedLoop', joins=None)]
    estimate = Estimate(config)
    assert 'no loop bounds captions: they are counted with 256 tokens' in estimate.notes
    assert estimate.memory(1).peak and 'decoder_copy' not in estimate.memory(1).kept
    assert estimate.flops().teacher == 0 < estimate.flops().total
    lines = list(table.lines(estimate, cards=()))
    told = next(line for line in lines if line.startswith('arithmetic'))
    of_nobody = seconds(estimate.flops(), 0, 784, 0.4, 2966, 0.4)
    assert f'{of_nobody:.3g} s' in told


def test_seconds():
    flops = StepFlops(encoders=100e12, teacher=7e12, language_model=200e12, backward=100e12, decoded_bytes=1e9,
                      caption_row=1, segmentation_row=1)
    assert seconds(flops, 10, tflops=800, share=0.5, gigabytes=100, read_share=0.5) == pytest.approx(1.0 + 0.2)


def test_unknown_deepspeed_settings_are_refused(config):
    with pytest.raises(ValueError, match='--deepspeed zero9.*zero2'):
        Estimate(config, deepspeed='zero9')
    assert Estimate(config, gpus=2, deepspeed='zero2').sharding.bf16
