"""Dropout by 16 bits an element against what dropout is."""

import math

import pytest
import torch
from torch import nn

from llava_sam2.dropout import QuickDropout, quicken_dropout


def test_kept_elements_are_scaled_and_their_share_is_right():
    for p in (0.05, 0.3, 0.5):
        torch.manual_seed(0)
        ones = torch.ones(1001, 997)
        dropped = QuickDropout(p)(ones)
        kept = dropped != 0
        assert kept.float().mean().item() == pytest.approx(1 - p, abs=4 * math.sqrt(p * (1 - p) / ones.numel()))
        torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - p)), rtol=2e-5, atol=0)


def test_every_element_is_dropped_alike_and_alone():
    """Four elements share 64 bits; none of the four may go otherwise than the rest, or with a neighbour."""
    torch.manual_seed(0)
    dropped = (QuickDropout(0.3)(torch.ones(200_000, 4)) == 0).double()
    assert dropped.mean(dim=0).tolist() == pytest.approx([0.3] * 4, abs=4 * math.sqrt(0.21 / 200_000))
    correlation = torch.corrcoef(dropped.T)
    assert (correlation - torch.eye(4)).abs().max() < 4.5 / math.sqrt(200_000)


def test_gradient_is_that_of_the_kept_elements():
    torch.manual_seed(0)
    x, up = torch.randn(7, 9, requires_grad=True), torch.randn(7, 9)
    y = QuickDropout(0.4)(x)
    (gradient, ) = torch.autograd.grad((y * up).sum(), x)
    torch.testing.assert_close(gradient, up * (y / x).detach())


@pytest.mark.parametrize('module', [QuickDropout(0.5).eval(), QuickDropout(0.0)])
def test_nothing_is_dropped(module):
    x = torch.randn(5, 3)
    assert torch.equal(module(x), x)
    assert not QuickDropout(1.0)(x).any()


def test_draws_follow_the_global_generator():
    x = torch.ones(50, 50, dtype=torch.bfloat16)
    drawn = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        drawn.append(QuickDropout(0.5)(x))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1]) and drawn[0].dtype == torch.bfloat16


def test_every_dropout_of_the_trained_model_is_quick(build_base):
    model = build_base(lora=dict(r=2, alpha=4, dropout=0.05))
    found = [module for module in model.network.language_model.modules() if isinstance(module, nn.Dropout)]
    assert found and all(type(module) is QuickDropout and module.p == 0.05 for module in found)
    layer = nn.Sequential(nn.Dropout(0.2), nn.ModuleDict(dict(a=nn.Dropout(0.1))))
    quicken_dropout(layer)
    assert [type(module) for module in layer.modules() if isinstance(module, nn.Dropout)] == [QuickDropout] * 2
