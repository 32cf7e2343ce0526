"""The moving average against float64 arithmetic, and against what bf16 would have done."""

import pytest
import torch
from torch import nn

from dual_loop.engine import ema as ema_module
from dual_loop.engine.ema import ExponentialMovingAverage


def tensors(dtype=torch.float32, **shapes) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


@pytest.mark.parametrize('bucket', [1, 10, 1 << 25])
def test_200_updates_equal_the_recursion_in_float64(monkeypatch, bucket):
    monkeypatch.setattr(ema_module, 'BUCKET', bucket)
    params = tensors(a=(3, 4), b=(5, ))
    ema = ExponentialMovingAverage(params.items(), max_decay=0.9)
    expected = {name: param.detach().double() for name, param in params.items()}
    generator = torch.Generator().manual_seed(1)
    for t in range(200):
        decay = min(0.9, (1 + t) / (10 + t))
        assert ema.decay == decay
        for name, param in params.items():
            param.data += 0.1 * torch.randn(param.shape, generator=generator)
            expected[name] = decay * expected[name] + (1 - decay) * param.detach().double()
        ema.update(params.items())
    assert ema.num_updates == 200
    for name in params:
        torch.testing.assert_close(ema.values[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_decay_by_its_closed_form():
    ema = ExponentialMovingAverage(tensors(a=(1, )).items())
    for updates, decay in ((0, 0.1), (8, 0.5), (80, 0.9), (890, 0.99), (8990, 0.999), (10**6, 0.999)):
        ema.num_updates = updates
        assert ema.decay == pytest.approx(decay, rel=1e-12)


def test_constant_parameters_are_approached_by_the_product_of_decays():
    params = tensors(a=(4, ))
    ema = ExponentialMovingAverage(params.items())
    start = ema.values['a'].double().clone()
    params['a'].data += 1.0
    left = 1.0
    for t in range(50):
        left *= (1 + t) / (10 + t)
        ema.update(params.items())
    torch.testing.assert_close(ema.values['a'].double(), start + (1 - left), rtol=1e-6, atol=1e-6)


def test_fp32_average_of_bf16_parameters_moves_where_a_bf16_average_stands_still():
    param = nn.Parameter(torch.ones(16, dtype=torch.bfloat16))
    ema = ExponentialMovingAverage([('w', param)], max_decay=0.999)
    ema.num_updates = 10**6  # past the warm-up: decay 0.999
    in_bf16 = param.detach().clone()
    param.data.fill_(1.25)
    for _ in range(1000):
        ema.update([('w', param)])
        in_bf16.lerp_(param.detach(), 0.001)
    assert ema.values['w'].dtype == torch.float32
    torch.testing.assert_close(ema.values['w'], torch.full((16, ), 1.25 - 0.25 * 0.999**1000), rtol=1e-4, atol=0)
    assert (in_bf16 == 1).all()


def test_the_start_is_a_copy():
    params = tensors(a=(2, ), b=(2, ))
    ema = ExponentialMovingAverage(params.items())
    before = ema.values['a'].clone()
    params['a'].data += 1
    assert torch.equal(ema.values['a'], before)
    with pytest.raises(ValueError, match='no trained parameter'):
        ExponentialMovingAverage([])
    with pytest.raises(ValueError, match=r'in \[0, 1\), got 1'):
        ExponentialMovingAverage(params.items(), max_decay=1)


def test_a_changed_set_of_trainables_is_an_error():
    params = tensors(a=(2, ), b=(2, ))
    ema = ExponentialMovingAverage(params.items())
    with pytest.raises(KeyError, match="'b' is missing now"):
        ema.update([('a', params['a'])])
    with pytest.raises(KeyError, match="'c' is not in the EMA"):
        ema.update([*params.items(), ('c', params['a'])])
    assert ema.num_updates == 0


def test_saved_and_loaded_it_continues_bit_for_bit():
    params = tensors(a=(3, ), b=(2, 2))
    ema = ExponentialMovingAverage(params.items())
    ema.update(params.items())
    other = ExponentialMovingAverage((name, nn.Parameter(torch.zeros_like(param))) for name, param in params.items())
    other.load_state_dict(ema.state_dict())
    for average in (ema, other):
        average.update((name, nn.Parameter(param + 1)) for name, param in params.items())
    assert other.num_updates == ema.num_updates == 2
    assert all(torch.equal(ema.values[name], other.values[name]) for name in params)
    assert other.values['a'].data_ptr() != ema.values['a'].data_ptr()


@pytest.mark.parametrize('change, message', [
    (lambda values: values.pop('b'), "misses 'b'"),
    (lambda values: values.update(c=torch.zeros(1)), "unexpected 'c'"),
    (lambda values: values.update(b=torch.zeros(4)), r"'b' has shape \(4,\) on one side and \(2, 2\)"),
    (lambda values: values.update(b=values['b'].bfloat16()), "'b' is torch.bfloat16"),
])
def test_a_checkpoint_that_does_not_fit_is_refused_whole(change, message):
    ema = ExponentialMovingAverage(tensors(a=(3, ), b=(2, 2)).items())
    state = dict(num_updates=5, values={name: value + 1 for name, value in ema.values.items()})
    change(state['values'])
    before = {name: value.clone() for name, value in ema.values.items()}
    with pytest.raises(ValueError, match=message):
        ema.load_state_dict(state)
    assert ema.num_updates == 0
    assert all(torch.equal(ema.values[name], before[name]) for name in before)


@pytest.mark.parametrize('bucket', [1, 1 << 25])
def test_distance_is_the_relative_l2_norm_over_all_tensors(monkeypatch, bucket):
    monkeypatch.setattr(ema_module, 'BUCKET', bucket)
    params = dict(a=nn.Parameter(torch.tensor([3.0, 0.0])), b=nn.Parameter(torch.tensor([[4.0]])))
    ema = ExponentialMovingAverage(params.items())
    assert ema.distance(params.items()) == 0
    params['a'].data += torch.tensor([3.0, 0.0])
    params['b'].data += 4.0
    assert ema.distance(params.items()) == pytest.approx(5 / 10)
    for param in params.values():
        param.data.zero_()
    assert ema.distance(params.items()) == 1  # no length to compare with, but they differ
