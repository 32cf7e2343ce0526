"""The limited gradient of the caption bridge against plain arithmetic."""

import pytest
import torch

from dual_loop.models.bridge_gradient import check_limits, limited


@pytest.fixture
def captions():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 4, generator=generator, requires_grad=True) for n in (3, 1, 5)]


UPSTREAM = [torch.randn(n, 4, generator=torch.Generator().manual_seed(2)) for n in (3, 1, 5)]


def gradients(captions, factor, max_norm, weights, upstream=UPSTREAM):
    """Of the captions, where each row's own loss has the given gradient and counts with its weight."""
    rows = limited(captions, factor, max_norm, weights)
    total = sum(weight * (row * up).sum() for row, up, weight in zip(rows, upstream, weights))
    return torch.autograd.grad(total, captions)


def test_nothing_is_touched_by_default_and_values_never_change(captions):
    assert all(one is other for one, other in zip(limited(captions, 1.0, None, torch.ones(3)), captions))
    for factor, bound in ((0.3, None), (1.0, 0.1), (0.0, None), (0.0, 0.1), (2.0, 5.0)):
        for one, other in zip(limited(captions, factor, bound, torch.ones(3)), captions):
            assert torch.equal(one, other)


def test_the_factor_scales_the_gradient_and_zero_detaches(captions):
    weights = torch.tensor([0.5, 0.2, 0.3])
    for found, up, weight in zip(gradients(captions, 0.3, None, weights), UPSTREAM, weights):
        torch.testing.assert_close(found, 0.3 * weight * up)
    assert not any(row.requires_grad for row in limited(captions, 0.0, 1.0, weights))


@pytest.mark.parametrize('factor', [1.0, 0.25])
def test_a_longer_gradient_is_cut_and_a_shorter_one_is_not(captions, factor):
    weights = torch.tensor([0.5, 0.2, 0.3])
    norms = [float(factor * up.norm()) for up in UPSTREAM]
    bound = sorted(norms)[1] * 0.99  # the middle one is just above it
    found = gradients(captions, factor, bound, weights)
    for one, up, weight, norm in zip(found, UPSTREAM, weights, norms):
        assert float(one.norm() / weight) == pytest.approx(min(norm, bound), rel=1e-5)
        torch.testing.assert_close(one / one.norm(), up / up.norm())
    assert [norm > bound for norm in norms].count(True) == 2


def test_micro_batches_add_up_to_the_whole_batch(captions):
    """The bound holds before the weight, so a row's share does not depend on its company."""
    together = gradients(captions, 0.5, 0.7, torch.full((3, ), 1 / 3))
    alone = [gradients([caption], 0.5, 0.7, torch.ones(1), [up])[0] / 3 for caption, up in zip(captions, UPSTREAM)]
    for one, other in zip(together, alone):
        torch.testing.assert_close(one, other)


def test_rows_without_gradient_and_without_weight_get_zeros(captions):
    upstream = [torch.zeros_like(up) if number == 0 else up for number, up in enumerate(UPSTREAM)]
    found = gradients(captions, 1.0, 0.5, torch.tensor([0.5, 0.0, 0.5]), upstream)
    assert [bool(one.any()) for one in found] == [False, False, True] and all(one.isfinite().all() for one in found)


def test_what_is_not_finite_is_not_hidden(captions):
    upstream = [torch.full_like(UPSTREAM[0], float('inf')), torch.full_like(UPSTREAM[1], float('nan')), UPSTREAM[2]]
    found = gradients(captions, 1.0, 0.5, torch.ones(3), upstream)
    assert [bool(one.isfinite().all()) for one in found] == [False, False, True]


def test_a_gradient_in_bf16_is_bounded_in_fp32(captions):
    soft = captions[2].detach().bfloat16().requires_grad_()
    [row] = limited([soft], 1.0, 0.01, torch.ones(1))
    [found] = torch.autograd.grad((row * UPSTREAM[2].bfloat16()).sum(), soft)
    assert found.dtype == torch.bfloat16 and float(found.float().norm()) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize(('factor', 'max_norm', 'named'), [
    (-0.1, None, 'bridge_gradient=-0.1'), (float('nan'), None, 'bridge_gradient=nan'),
    (float('inf'), None, 'bridge_gradient=inf'), (1.0, 0.0, 'bridge_max_norm=0.0.*bridge_gradient=0'),
    (1.0, -1.0, 'bridge_max_norm=-1.0'), (1.0, float('inf'), 'bridge_max_norm=inf')])
def test_limits_that_make_no_sense_are_refused(factor, max_norm, named):
    with pytest.raises(ValueError, match=named):
        check_limits(factor, max_norm)
