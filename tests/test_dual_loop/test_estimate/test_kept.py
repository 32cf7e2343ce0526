"""What is kept between steps, to the byte of the real tensors."""

import pytest
import torch

from dual_loop.engine.ema import ExponentialMovingAverage
from dual_loop.estimate.kept import Sharding, decoder_bytes, kept_bytes, optimizer_moment, sharding_of
from dual_loop.models.teacher import Teacher
from llava_sam2.portable.static_decoding import StaticDecoder


def size(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_every_part_is_what_the_real_tensors_take(pair, dtype):
    real, shadow = pair(dtype=dtype)
    kept = kept_bytes(shadow, 2, Sharding(), averages=True)
    trained = real.trainables()
    assert kept['trained_weights'] == size(trained.values())
    assert kept['frozen_weights'] == size([*real.parameters(), *real.buffers()]) - size(trained.values())
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [each for state in optimizer.state.values() for name, each in state.items() if name != 'step']
    assert kept['optimizer'] == size(moments)
    # The gradients, and the square root of one moment, which a GPU takes of all tensors at once.
    assert optimizer_moment(shadow, Sharding()) == size(p.grad for p in trained.values()) + size(moments) // 2
    assert kept['averages'] == size(ExponentialMovingAverage(trained.items()).values.values())
    assert kept['teacher'] == size(Teacher(real.base).values.values())
    assert kept['gradients_of_loops'] == 2 * 4 * sum(p.numel() for p in trained.values())
    assert kept['masters'] == 0


def test_the_decoder(pair):
    real, shadow = pair()
    network = real.base.network.eval()
    decoder = StaticDecoder(network, real.base.vocabulary)
    decoder._room(4, 300 + real.base.vocabulary.num_terminator_tokens)
    expected = dict(decoder_copy=size(part for layer in decoder.layers for part in (*layer.copies, layer.bias)),
                    decoder_cache=size([decoder.store]))
    assert decoder_bytes(shadow, 4, 290, 10) == decoder_bytes(real, 4, 290, 10) == expected
    assert decoder_bytes(shadow, 3, 290, 10) == expected, 'a graph has a power of two of rows'


def test_without_lora_the_decoder_copies_nothing(pair):
    _, shadow = pair(lora=None, trainable=('mlp1', 'mask_decoder', 'text_hidden_fcs'))
    assert decoder_bytes(shadow, 4, 290, 10)['decoder_copy'] == 0


def test_zero_cuts_masters_and_optimizer_into_pieces(pair):
    _, shadow = pair(dtype='bfloat16')
    one, four = (kept_bytes(shadow, 2, Sharding(gpus, 2, bf16=True), averages=True) for gpus in (1, 4))
    count = sum(parameter.numel() for parameter in shadow.trainables().values())
    assert one['trained_weights'] == four['trained_weights'] == 2 * count
    assert one['masters'] == 4 * count and one['optimizer'] == 8 * count
    assert four['masters'] == 4 * -(-count // 4) and four['optimizer'] == 8 * -(-count // 4)
    assert {name for name in one if one[name] != four[name]} == {'masters', 'optimizer'}
    assert kept_bytes(shadow, 2, Sharding(4, 2, True, offload=True), averages=True)['optimizer'] == 0


def test_settings_of_deepspeed():
    assert sharding_of(None, 4) == Sharding(4)
    assert sharding_of(dict(bf16=dict(enabled=True), zero_optimization=dict(stage=2)), 2) == Sharding(2, 2, True)
    with pytest.raises(ValueError, match='ZeRO-3'):
        sharding_of(dict(zero_optimization=dict(stage=3)), 2)
