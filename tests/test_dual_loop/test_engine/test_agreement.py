"""Agreement between batches against gradients whose common part is known."""

import pytest
import torch

from dual_loop.engine.agreement import GradientAgreement
from dual_loop.engine.flat import FlatLayout

SIZE = 4000
GROUPS = dict(lora=dict(pattern='lora', loops=('loop1', 'loop2')), decoder=dict(pattern='decoder', loops=('loop1', )))


@pytest.fixture
def agreement():
    params = [(name, torch.nn.Parameter(torch.zeros(SIZE))) for name in ('lora.A', 'decoder.w')]
    return GradientAgreement(FlatLayout.from_params(params, GROUPS, [['loop1'], ['loop2']]))


def test_its_mean_is_the_share_that_batches_have_in_common(agreement):
    """A common part of variance 1 beside noise of variance 3 in LoRA; noise alone in the decoder."""
    draw = torch.Generator().manual_seed(0)
    common = torch.randn(SIZE, generator=draw)

    def gradient(signal: float, noise: float) -> torch.Tensor:
        return signal * common + noise * torch.randn(SIZE, generator=draw)

    figures = [agreement.look([torch.cat([gradient(1, 3**0.5), gradient(0, 1)]),
                               torch.cat([gradient(2, 0), torch.zeros(SIZE)])]) for _ in range(41)]
    assert figures[0] == {} and all(each.keys() == figures[1].keys() for each in figures[1:])
    means = {name: sum(each[name] for each in figures[1:]) / 40 for name in figures[1]}
    assert means == pytest.approx({'agreement1': 1 / 5, 'agreement2': 1, 'agreement1/lora': 1 / 4,
                                   'agreement2/lora': 1, 'agreement1/decoder': 0}, abs=0.01)


def test_a_gradient_of_zero_or_beyond_numbers_has_no_figure(agreement):
    one, zero, broken = torch.ones(2 * SIZE), torch.zeros(2 * SIZE), torch.full((2 * SIZE, ), float('inf'))
    second = torch.cat([torch.ones(SIZE), torch.zeros(SIZE)])
    assert agreement.look([broken, second]) == {} and agreement.look([one, zero]) == {}
    assert agreement.look([-one, second]).keys() == {'agreement1', 'agreement1/lora', 'agreement1/decoder'}
    assert agreement.look([broken, second]) == {}
    assert agreement.look([one, second]) == pytest.approx({
        'agreement1': -1, 'agreement2': 1, 'agreement1/lora': -1, 'agreement2/lora': 1, 'agreement1/decoder': -1})
