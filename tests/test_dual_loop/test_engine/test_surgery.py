"""Surgery rules against closed forms in float64, and their behaviour at the edges."""

import math

import pytest
import torch

from dual_loop.engine import surgery
from dual_loop.engine.flat import FlatLayout
from dual_loop.engine.surgery import GradientSurgery, find_rule

RULES = ('orthogonal', 'pcgrad', 'sum')


def layout_of(**sizes: int) -> FlatLayout:
    """One tensor per keyword; loop 1 alone reaches those that begin with ``mask``, loop 2 alone ``text``."""
    groups = dict(mask=dict(pattern='^mask', loops=(1, )), text=dict(pattern='^text', loops=(2, )),
                  shared=dict(pattern='', loops=(1, 2)))
    return FlatLayout.from_params([(name, torch.zeros(size, requires_grad=True)) for name, size in sizes.items()],
                                  groups)


def combine(g1, g2, rule='orthogonal', beta=0.5, max_grad_norm=None):
    g1, g2 = torch.as_tensor(g1, dtype=torch.float32), torch.as_tensor(g2, dtype=torch.float32)
    return GradientSurgery(rule, beta, max_grad_norm).combine(g1, g2, layout_of(w=len(g1)))


def random_pair(seed: int, cosine_shift: float = 0.0, size: int = 50):
    generator = torch.Generator().manual_seed(seed)
    g1 = torch.randn(size, generator=generator)
    return g1, torch.randn(size, generator=generator) + cosine_shift * g1


# --- the rules on a plane, by hand


def test_orthogonal_by_hand():
    # <g1,g2> / <g1,g1> = 2 / 4, so g2 without its part along g1 is (0, 3).
    combined, stats = combine([2, 0], [1, 3], beta=0.5)
    assert combined.tolist() == [2, 1.5]
    assert stats.weights == (0.75, 0.5)
    assert (stats.shared.norm1, stats.shared.norm2) == (2, math.sqrt(10))
    assert stats.shared.coefficient == 0.5 and stats.shared.cosine == pytest.approx(1 / math.sqrt(10))
    # It projects on agreement and on conflict alike.
    assert combine([2, 0], [-1, 3], beta=0.5)[0].tolist() == [2, 1.5]


def test_pcgrad_by_hand():
    assert combine([2, 0], [1, 3], 'pcgrad', beta=1)[0].tolist() == [3, 3]  # no conflict
    # g1' = (2,0) + 2/10 (-1,3) = (1.8, 0.6); g2' = (-1,3) + 2/4 (2,0) = (0, 3)
    combined, stats = combine([2, 0], [-1, 3], 'pcgrad', beta=1)
    torch.testing.assert_close(combined, torch.tensor([1.8, 3.6]))
    assert stats.weights == pytest.approx((1.5, 1.2))
    # beta scales the second gradient before the projection: g1' + beta * g2'
    torch.testing.assert_close(combine([2, 0], [-1, 3], 'pcgrad', beta=0.5)[0], torch.tensor([1.8, 2.1]))


def plain_pcgrad(g1, g2):
    """Algorithm 1 of the paper on the vectors themselves."""
    projected = []
    for own, other in ((g1, g2), (g2, g1)):
        inner = own @ other
        projected.append(own - inner / (other @ other) * other if inner < 0 else own)
    return projected[0] + projected[1]


@pytest.mark.parametrize('shift', [-1.0, -0.1, 0.0, 0.1, 1.0])
@pytest.mark.parametrize('beta', [0.5, 1.0, 3.0])
def test_rules_equal_their_definitions_on_vectors(shift, beta):
    for seed in range(5):
        g1, g2 = random_pair(seed, shift)
        x, y = g1.double(), g2.double()
        expected = dict(orthogonal=x + beta * (y - (x @ y) / (x @ x) * x), pcgrad=plain_pcgrad(x, beta * y), sum=x + y)
        for rule in RULES:
            combined, stats = combine(g1, g2, rule, beta)
            torch.testing.assert_close(combined.double(), expected[rule], rtol=1e-5, atol=1e-5)
            assert stats.grad_norm == pytest.approx(expected[rule].norm().item(), rel=1e-5)
            assert stats.shared.cosine == pytest.approx((x @ y / x.norm() / y.norm()).item(), rel=1e-6)


def test_pcgrad_never_opposes_either_gradient():
    num_conflicts = 0
    for seed in range(40):
        g1, g2 = random_pair(seed, cosine_shift=seed / 10 - 3, size=3)
        combined, stats = combine(g1, g2, 'pcgrad')
        num_conflicts += stats.shared.cosine < 0
        for g in (g1, g2):
            assert combined.double() @ g.double() >= -1e-6 * combined.norm() * g.norm()
    assert 5 < num_conflicts < 35


def test_orthogonal_keeps_the_projection_on_g1():
    for seed in range(10):
        g1, g2 = random_pair(seed, cosine_shift=seed - 5)
        combined, _ = combine(g1, g2)
        assert (combined.double() @ g1.double() / (g1.double() @ g1.double())).item() == pytest.approx(1, abs=1e-5)


def test_sum_is_bit_equal_to_adding_and_ignores_beta():
    g1, g2 = random_pair(0, size=1000)
    layout = layout_of(w=400, mask=300, text=300)
    combined, stats = GradientSurgery('sum', beta=0.3, max_grad_norm=None).combine(g1, g2, layout)
    assert torch.equal(combined, g1 + g2)
    assert stats.weights == (1, 1)


# --- edges


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('scale', [1e-30, 1e-12, 1e12, 1e30])
def test_only_relative_size_matters(rule, scale):
    g1, g2 = random_pair(3, cosine_shift=-0.5)
    reference, reference_stats = combine(g1, g2, rule)
    scaled, stats = combine(g1 * scale, g2 * scale, rule)
    torch.testing.assert_close(scaled.double() / scale, reference.double(), rtol=1e-5, atol=1e-5)
    assert stats.weights == pytest.approx(reference_stats.weights, rel=1e-5)
    assert stats.shared.cosine == pytest.approx(reference_stats.shared.cosine, rel=1e-5)


@pytest.mark.parametrize('scale', [1.0, 1e-12])
def test_collinear_opposite_and_zero_gradients(scale):
    g = random_pair(1)[0] * scale
    zero = torch.zeros_like(g)

    def relative_error(combined, expected):
        return ((combined - expected).norm() / g.norm()).item()

    for factor in (1.0, -1.0, 3.0):  # all of g2 lies along g1: nothing of it is left
        assert relative_error(combine(g, factor * g)[0], g) < 1e-6
    assert relative_error(combine(g, 2 * g, 'pcgrad', beta=1)[0], 3 * g) < 1e-6
    assert relative_error(combine(g, -2 * g, 'pcgrad', beta=1)[0], zero) < 1e-6
    for rule in ('orthogonal', 'pcgrad'):
        assert torch.equal(combine(g, zero, rule)[0], g)
        combined, stats = combine(zero, g, rule)  # nothing to project on
        assert torch.equal(combined, 0.5 * g)
        assert (stats.shared.cosine, stats.shared.coefficient) == (0, 0)
        assert combine(zero, zero, rule)[0].count_nonzero() == 0


def test_a_gradient_below_fp32_resolution_of_the_other_is_nothing_to_project_on():
    g1, g2 = random_pair(2, cosine_shift=-1)
    for rule in ('orthogonal', 'pcgrad'):
        torch.testing.assert_close(combine(1e-9 * g1, g2, rule)[0], 0.5 * g2, rtol=1e-6, atol=1e-7)
        # Small, but not that small: projected.
        combined, _ = combine(1e-4 * g1, g2, rule)
        assert (combined @ g1).abs() < 1e-3 * combined.norm() * g1.norm()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('name', ['w', 'mask', 'text'])
def test_a_non_finite_element_anywhere_gives_no_gradient_and_names_the_loop(bad, name):
    layout = layout_of(w=4, mask=4, text=4)
    loop = 2 if name == 'text' else 1
    grads = [torch.ones(12), torch.ones(12)]
    dict(zip(layout.names, layout.split(grads[loop - 1])))[name][1] = bad
    out = torch.full((12, ), 7.0)
    combined, stats = GradientSurgery().combine(*grads, layout, out=out)
    assert combined is None and not stats.finite and stats.scalars() == {}
    assert (stats.finite1, stats.finite2) == (loop != 1, loop != 2)
    assert (out == 7).all()


def test_large_finite_gradients_are_not_mistaken_for_infinite_ones():
    combined, stats = combine([3e38, 1e38], [0, 1e38], max_grad_norm=1.0)
    assert stats.finite and combined.norm().item() == pytest.approx(1)


# --- layout, clipping, statistics


def test_unshared_tensors_bypass_the_rule():
    layout = layout_of(w=2, mask=2, v=1, text=2)  # the shared tensors are two separate runs
    g1 = torch.tensor([2.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0])
    g2 = torch.tensor([-1.0, 3.0, 0.0, 0.0, 4.0, 7.0, 8.0])
    combined, stats = GradientSurgery('orthogonal', 0.5, None).combine(g1, g2, layout)
    # Over w and v: <g1,g2> / <g1,g1> = -2/4; the mask and text tensors take no part.
    assert combined.tolist() == [2, 1.5, 5, 6, 2, 3.5, 4]
    assert stats.shared.coefficient == -0.5
    assert stats.shared.norm2 == pytest.approx(math.sqrt(1 + 9 + 16))
    assert stats.groups['mask'].norm1 == pytest.approx(math.sqrt(61)) and stats.groups['mask'].norm2 == 0
    assert stats.scalars()['grad_norm2/text'] == pytest.approx(math.sqrt(113))


def test_group_statistics_are_per_group():
    groups = dict(lora=dict(pattern='lora', loops=(1, 2)), mlp1=dict(pattern='mlp1', loops=(1, 2)))
    layout = FlatLayout.from_params([(n, torch.zeros(1, requires_grad=True)) for n in ('lora', 'mlp1')], groups)
    _, stats = GradientSurgery().combine(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0]), layout)
    scalars = stats.scalars()
    assert (scalars['cosine/lora'], scalars['cosine/mlp1']) == (1, -1)
    assert (scalars['coefficient/lora'], scalars['coefficient/mlp1']) == (3, -2)
    assert scalars['coefficient'] == (3 - 8) / 5


def test_clipping_acts_on_the_combined_gradient_of_all_tensors():
    layout = layout_of(w=2, mask=2)
    g1, g2 = torch.tensor([3.0, 0.0, 4.0, 0.0]), torch.zeros(4)
    combined, stats = GradientSurgery(max_grad_norm=1.0).combine(g1, g2, layout)
    torch.testing.assert_close(combined, g1 / 5)
    assert (stats.grad_norm, stats.clipped_norm) == (5, 1)
    for limit in (6.0, None):
        combined, stats = GradientSurgery(max_grad_norm=limit).combine(g1, g2, layout)
        assert torch.equal(combined, g1) and stats.clipped_norm == 5


def test_result_may_overwrite_g1_but_not_g2():
    g1, g2 = random_pair(4)
    layout = layout_of(w=50)
    kept = g1.clone()
    expected, _ = GradientSurgery().combine(g1, g2, layout)
    assert torch.equal(g1, kept)
    combined, _ = GradientSurgery().combine(g1, g2, layout, out=g1)
    assert combined is g1 and torch.equal(g1, expected)
    with pytest.raises(ValueError, match='not g2'):
        GradientSurgery().combine(g1, g2, layout, out=g2)


def test_chunks_and_runs_give_the_same_gramian(monkeypatch):
    g1, g2 = random_pair(5, cosine_shift=0.3, size=997)
    layout = layout_of(a=300, mask=100, b=597)
    whole = GradientSurgery().combine(g1, g2, layout)[1].scalars()
    monkeypatch.setattr(surgery, 'CHUNK', 7)
    assert GradientSurgery().combine(g1, g2, layout)[1].scalars() == pytest.approx(whole, rel=1e-12)


# --- names and arguments


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="unknown surgery rule 'pc_grad'; there are orthogonal, pcgrad, sum"):
        GradientSurgery('pc_grad')
    for beta in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match='beta must be a finite number >= 0'):
            GradientSurgery(beta=beta)
    with pytest.raises(ValueError, match='None for no clipping'):
        GradientSurgery(max_grad_norm=0.0)


def test_a_rule_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.setattr(surgery, 'SURGERY_RULES', dict(surgery.SURGERY_RULES))
    surgery.surgery_rule('first_only')(lambda gramian, beta: (1.0, 0.0))
    assert combine([1, 2], [3, 4], 'first_only')[0].tolist() == [1, 2]
    with pytest.raises(KeyError, match='registered twice'):
        surgery.surgery_rule('first_only')(lambda gramian, beta: (1.0, 1.0))


def test_torchjd_missing_is_said_in_words(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchjd', None)
    with pytest.raises(ImportError, match="'torchjd:UPGrad' needs TorchJD: pip install torchjd"):
        GradientSurgery('torchjd:UPGrad')


def test_torchjd_weightings_by_name():
    pytest.importorskip('torchjd', reason='TorchJD is optional')
    gramian = torch.tensor([[1.0, -0.5], [-0.5, 2.0]], dtype=torch.float64)
    for scale in (1.0, 1e-24):  # TorchJD's own thresholds are absolute; ours must not be
        for name in ('PCGrad', 'GradVacWeighting'):  # GradVac's first step is PCGrad's; its epsilon is absolute
            weights = find_rule(f'torchjd:{name}')(gramian * scale, 0.5)
            assert weights == pytest.approx(find_rule('pcgrad')(gramian, 0.5), rel=1e-6)
        # Minimum norm: w = (g22 - g12, g11 - g12) / (g11 + g22 - 2 g12) for g1 and beta * g2 = g2
        w1, w2 = find_rule('torchjd:MGDAWeighting')(gramian * scale, 1.0)
        assert (w1, w2) == pytest.approx((2.5 / 4, 1.5 / 4), rel=1e-3)
    with pytest.raises(ValueError, match="no Gramian weighting 'Nothing'; it has .*PCGradWeighting"):
        find_rule('torchjd:Nothing')
