"""Surgery rules against closed forms in float64, and their behaviour at the edges."""

import math

import pytest
import torch

from dual_loop.engine import surgery
from dual_loop.engine.flat import FlatLayout
from dual_loop.engine.surgery import GradientPair, GradientSurgery
from dual_loop.engine.surgery_rules import SURGERY_RULES, build_rule

RULES = ('orthogonal', 'pcgrad', 'sum')
TWO = [['loop1'], ['loop2']]


def layout_of(**sizes: int) -> FlatLayout:
    """One tensor per keyword; loop 1 alone reaches those that begin with ``mask``, loop 2 alone ``text``."""
    groups = dict(mask=dict(pattern='^mask', loops=['loop1']), text=dict(pattern='^text', loops=['loop2']),
                  shared=dict(pattern='', loops=['loop1', 'loop2']))
    return FlatLayout.from_params([(name, torch.zeros(size, requires_grad=True)) for name, size in sizes.items()],
                                  groups, TWO)


def combine(g1, g2, rule='orthogonal', beta=0.5, max_grad_norm=None):
    g1, g2 = torch.as_tensor(g1, dtype=torch.float32), torch.as_tensor(g2, dtype=torch.float32)
    return GradientSurgery(rule, beta, max_grad_norm).combine([g1, g2], layout_of(w=len(g1)))


def pair_of(stats) -> GradientPair:
    return GradientPair.from_gramian(stats.gramian)


def random_pair(seed: int, cosine_shift: float = 0.0, size: int = 50):
    generator = torch.Generator().manual_seed(seed)
    g1 = torch.randn(size, generator=generator)
    return g1, torch.randn(size, generator=generator) + cosine_shift * g1


# --- the rules on a plane, by hand


def test_orthogonal_by_hand():
    # <g1,g2> / <g1,g1> = 2 / 4, so g2 without its part along g1 is (0, 3).
    combined, stats = combine([2, 0], [1, 3], beta=0.5)
    assert combined.tolist() == [2, 1.5]
    assert stats.weights[0, 1] == (0.75, 0.5)
    assert (pair_of(stats).norm1, pair_of(stats).norm2) == (2, math.sqrt(10))
    assert pair_of(stats).coefficient == 0.5 and pair_of(stats).cosine == pytest.approx(1 / math.sqrt(10))
    # It projects on agreement and on conflict alike.
    assert combine([2, 0], [-1, 3], beta=0.5)[0].tolist() == [2, 1.5]


def test_pcgrad_by_hand():
    assert combine([2, 0], [1, 3], 'pcgrad', beta=1)[0].tolist() == [3, 3]  # no conflict
    # g1' = (2,0) + 2/10 (-1,3) = (1.8, 0.6); g2' = (-1,3) + 2/4 (2,0) = (0, 3)
    combined, stats = combine([2, 0], [-1, 3], 'pcgrad', beta=1)
    torch.testing.assert_close(combined, torch.tensor([1.8, 3.6]))
    assert stats.weights[0, 1] == pytest.approx((1.5, 1.2))
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
            assert pair_of(stats).cosine == pytest.approx((x @ y / x.norm() / y.norm()).item(), rel=1e-6)


def test_pcgrad_never_opposes_either_gradient():
    num_conflicts = 0
    for seed in range(40):
        g1, g2 = random_pair(seed, cosine_shift=seed / 10 - 3, size=3)
        combined, stats = combine(g1, g2, 'pcgrad')
        num_conflicts += pair_of(stats).cosine < 0
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
    g2[400:700], g1[700:] = 0, 0  # where the loops do not reach
    combined, stats = GradientSurgery('sum', beta=0.3, max_grad_norm=None).combine([g1, g2], layout)
    assert torch.equal(combined, g1 + g2)
    assert stats.weights[0, 1] == (1, 1)


# --- edges


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('scale', [1e-30, 1e-12, 1e12, 1e30])
def test_only_relative_size_matters(rule, scale):
    g1, g2 = random_pair(3, cosine_shift=-0.5)
    reference, reference_stats = combine(g1, g2, rule)
    scaled, stats = combine(g1 * scale, g2 * scale, rule)
    torch.testing.assert_close(scaled.double() / scale, reference.double(), rtol=1e-5, atol=1e-5)
    assert stats.weights[0, 1] == pytest.approx(reference_stats.weights[0, 1], rel=1e-5)
    assert pair_of(stats).cosine == pytest.approx(pair_of(reference_stats).cosine, rel=1e-5)


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
        assert (pair_of(stats).cosine, pair_of(stats).coefficient) == (0, 0)
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
    combined, stats = GradientSurgery().combine(grads, layout, out=out)
    assert combined is None and not stats.finite and stats.scalars() == {}
    assert stats.finite_each == (loop != 1, loop != 2)
    assert (out == 7).all()


def test_large_finite_gradients_are_not_mistaken_for_infinite_ones():
    combined, stats = combine([3e38, 1e38], [0, 1e38], max_grad_norm=1.0)
    assert stats.finite and combined.norm().item() == pytest.approx(1)


# --- layout, clipping, statistics


def test_unshared_tensors_bypass_the_rule():
    layout = layout_of(w=2, mask=2, v=1, text=2)  # the shared tensors are two separate runs
    g1 = torch.tensor([2.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0])
    g2 = torch.tensor([-1.0, 3.0, 0.0, 0.0, 4.0, 7.0, 8.0])
    combined, stats = GradientSurgery('orthogonal', 0.5, None).combine([g1, g2], layout)
    # Over w and v: <g1,g2> / <g1,g1> = -2/4; the mask and text tensors take no part.
    assert combined.tolist() == [2, 1.5, 5, 6, 2, 3.5, 4]
    assert pair_of(stats).coefficient == -0.5
    assert pair_of(stats).norm2 == pytest.approx(math.sqrt(1 + 9 + 16))
    of_mask = GradientPair.from_gramian(stats.groups['mask'])
    assert of_mask.norm1 == pytest.approx(math.sqrt(61)) and of_mask.norm2 == 0
    assert stats.scalars()['grad_norm2/text'] == pytest.approx(math.sqrt(113))


def test_group_statistics_are_per_group():
    groups = {name: dict(pattern=name, loops=['loop1', 'loop2']) for name in ('lora', 'mlp1')}
    layout = FlatLayout.from_params([(n, torch.zeros(1, requires_grad=True)) for n in ('lora', 'mlp1')], groups, TWO)
    _, stats = GradientSurgery().combine([torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0])], layout)
    scalars = stats.scalars()
    assert (scalars['cosine/lora'], scalars['cosine/mlp1']) == (1, -1)
    assert (scalars['coefficient/lora'], scalars['coefficient/mlp1']) == (3, -2)
    assert scalars['coefficient'] == (3 - 8) / 5


def test_clipping_acts_on_the_combined_gradient_of_all_tensors():
    layout = layout_of(w=2, mask=2)
    g1, g2 = torch.tensor([3.0, 0.0, 4.0, 0.0]), torch.zeros(4)
    combined, stats = GradientSurgery(max_grad_norm=1.0).combine([g1, g2], layout)
    torch.testing.assert_close(combined, g1 / 5)
    assert (stats.grad_norm, stats.clipped_norm) == (5, 1)
    for limit in (6.0, None):
        combined, stats = GradientSurgery(max_grad_norm=limit).combine([g1, g2], layout)
        assert torch.equal(combined, g1) and stats.clipped_norm == 5


def test_result_may_overwrite_g1_but_not_g2():
    g1, g2 = random_pair(4)
    layout = layout_of(w=50)
    kept = g1.clone()
    expected, _ = GradientSurgery().combine([g1, g2], layout)
    assert torch.equal(g1, kept)
    combined, _ = GradientSurgery().combine([g1, g2], layout, out=g1)
    assert combined is g1 and torch.equal(g1, expected)
    with pytest.raises(ValueError, match='first gradient may be given|may be the first'):
        GradientSurgery().combine([g1, g2], layout, out=g2)


def test_chunks_and_runs_give_the_same_gramian(monkeypatch):
    g1, g2 = random_pair(5, cosine_shift=0.3, size=997)
    layout = layout_of(a=300, mask=100, b=597)
    whole = GradientSurgery().combine([g1, g2], layout)[1].scalars()
    monkeypatch.setattr(surgery, 'CHUNK', 7)
    assert GradientSurgery().combine([g1, g2], layout)[1].scalars() == pytest.approx(whole, rel=1e-12)


# --- names and arguments


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="unknown surgery rule 'pc_grad'; there are orthogonal, pcgrad, sum"):
        GradientSurgery('pc_grad')
    for beta in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match='beta must be a finite number >= 0'):
            GradientSurgery(beta=beta)
    with pytest.raises(ValueError, match='None for no clipping'):
        GradientSurgery(max_grad_norm=0.0)


def test_a_rule_of_ones_own_is_a_name_a_class_with_settings_or_a_function(monkeypatch):
    monkeypatch.setattr(SURGERY_RULES, '_module_dict', dict(SURGERY_RULES.module_dict))

    @SURGERY_RULES.register_module()
    def first_only(gramian, betas):
        return [1.0, 0.0]

    @SURGERY_RULES.register_module()
    class Scaled:
        def __init__(self, factor=2.0):
            self.factor = factor

        def __call__(self, gramian, betas):
            return [self.factor * beta for beta in betas]

    assert combine([1, 2], [3, 4], 'first_only')[0].tolist() == [1, 2]
    assert combine([1, 2], [3, 4], first_only)[0].tolist() == [1, 2]
    assert combine([1, 2], [3, 4], 'Scaled', beta=1)[0].tolist() == [8, 12]
    assert combine([1, 2], [3, 4], dict(type='Scaled', factor=3.0), beta=0.5)[0].tolist() == [7.5, 12]
    with pytest.raises(KeyError, match='first_only is already registered'):
        SURGERY_RULES.register_module(name='first_only', module=lambda gramian, betas: betas)


# --- more than two gradients


def gram_schmidt(gradients, betas):
    """The definition on the vectors themselves, by least squares: each without its part in the span of those before."""
    total = gradients[0] * betas[0]
    for number in range(1, len(gradients)):
        before = torch.stack(gradients[:number], dim=1)
        along = before @ torch.linalg.lstsq(before, gradients[number][:, None]).solution
        total = total + betas[number] * (gradients[number] - along[:, 0])
    return total


def pcgrad_in_order(gradients):
    """Algorithm 1 of the paper on the vectors, without its shuffle."""
    total = torch.zeros_like(gradients[0])
    for own in gradients:
        projected = own.clone()
        for other in gradients:
            if other is not own and projected @ other < 0:
                projected -= projected @ other / (other @ other) * other
        total += projected
    return total


@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_many_gradients_follow_the_definitions(count):
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        gradients = list(torch.randn(count, 40, generator=generator) + 0.4 * torch.randn(40, generator=generator))
        gradients[-1] = gradients[-1] - gradients[0]
        betas = [0.3 + 0.5 * number for number in range(count - 1)]
        doubles = [gradient.double() for gradient in gradients]
        scaled = [beta * gradient for beta, gradient in zip([1, *betas], doubles)]
        names = [f'loop{number}' for number in range(count)]
        layout = FlatLayout.from_params([('w', torch.zeros(40, requires_grad=True))],
                                        dict(all=dict(pattern='', loops=names)), [[name] for name in names])
        expected = dict(orthogonal=gram_schmidt(doubles, [1, *betas]), pcgrad=pcgrad_in_order(scaled),
                        sum=sum(doubles))
        for rule in RULES:
            combined, stats = GradientSurgery(rule, betas, None).combine(gradients, layout)
            torch.testing.assert_close(combined.double(), expected[rule], rtol=1e-4, atol=1e-5)
        figures = stats.scalars()
        assert figures[f'grad_norm{count}'] == pytest.approx(doubles[-1].norm().item())
        if count > 2:
            assert figures['cosine13'] == pytest.approx(torch.cosine_similarity(doubles[0], doubles[2], dim=0).item())


def test_a_gradient_in_the_span_of_those_before_it_adds_nothing():
    g1, g2 = random_pair(7)
    layout = FlatLayout.from_params([('w', torch.zeros(50, requires_grad=True))],
                                    dict(all=dict(pattern='', loops=['a', 'b', 'c'])), [['a'], ['b'], ['c']])
    two, _ = GradientSurgery('orthogonal', [1.0, 0.0], None).combine([g1, g2, g1], layout)
    three, _ = GradientSurgery('orthogonal', 1.0, None).combine([g1, g2, 2 * g1 - g2], layout)
    torch.testing.assert_close(three, two, rtol=1e-5, atol=1e-5)


def test_each_set_of_gradients_has_a_gramian_of_its_own():
    """The decoder is reached by 1 and 3, the trunk by all, the text by 2 alone; each as if it were the only one."""
    groups = dict(trunk=dict(pattern='trunk', loops=['a', 'b', 'c']), decoder=dict(pattern='decoder', loops=['a', 'c']),
                  text=dict(pattern='text', loops=['b']))
    sizes = dict(trunk1=3, decoder=4, trunk2=5, text=2)
    layout = FlatLayout.from_params([(name, torch.zeros(size, requires_grad=True)) for name, size in sizes.items()],
                                    groups, [['a'], ['b'], ['c']])
    generator = torch.Generator().manual_seed(1)
    gradients = list(torch.randn(3, 14, generator=generator))
    reached = dict(trunk1='abc', decoder='ac', trunk2='abc', text='b')
    for name, gradient in zip('abc', gradients):
        for tensor, part in zip(layout.names, layout.split(gradient)):
            if name not in reached[tensor]:
                part.zero_()
    combined, stats = GradientSurgery('orthogonal', [0.5, 2.0], None).combine(gradients, layout)
    a, b, c = ({name: part.double() for name, part in zip(layout.names, layout.split(gradient))}
               for gradient in gradients)
    trunk = gram_schmidt([torch.cat([each['trunk1'], each['trunk2']]) for each in (a, b, c)], [1, 0.5, 2.0])
    found = dict(zip(layout.names, layout.split(combined)))
    torch.testing.assert_close(torch.cat([found['trunk1'], found['trunk2']]).double(), trunk, rtol=1e-5, atol=1e-5)
    expected = gram_schmidt([a['decoder'], c['decoder']], [1, 2.0])
    torch.testing.assert_close(found['decoder'].double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found['text'], 0.5 * b['text'].float())
    assert set(stats.weights) == {(0, 1, 2), (0, 2), (1, )}
    figures = stats.scalars()
    assert {'w1', 'w2', 'w3', 'w1/1+3', 'w3/1+3', 'cosine', 'cosine13', 'cosine23'} <= set(figures)
    # Between 1 and 3 lie trunk and decoder.
    both = [torch.cat([each['trunk1'], each['trunk2'], each['decoder']]) for each in (a, c)]
    assert figures['cosine13'] == pytest.approx(torch.cosine_similarity(*both, dim=0).item())


def test_one_beta_for_each_later_gradient():
    with pytest.raises(ValueError, match='has 2 numbers for 1 gradients after the first'):
        combine([1, 2], [3, 4], beta=[0.5, 0.5])
    assert combine([1, 0], [0, 2], beta=[0.25])[0].tolist() == [1, 0.5]


def test_torchjd_missing_is_said_in_words(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchjd', None)
    with pytest.raises(ImportError, match="'torchjd:UPGrad' needs TorchJD: pip install torchjd"):
        GradientSurgery('torchjd:UPGrad')


def test_torchjd_weightings_by_name():
    pytest.importorskip('torchjd', reason='TorchJD is optional')
    gramian = torch.tensor([[1.0, -0.5], [-0.5, 2.0]], dtype=torch.float64)
    for scale in (1.0, 1e-24):  # TorchJD's own thresholds are absolute; ours must not be
        for name in ('PCGrad', 'GradVacWeighting'):  # GradVac's first step is PCGrad's; its epsilon is absolute
            weights = build_rule(f'torchjd:{name}')(gramian * scale, [1.0, 0.5])
            assert weights == pytest.approx(build_rule('pcgrad')(gramian, [1.0, 0.5]), rel=1e-6)
        # Minimum norm: w = (g22 - g12, g11 - g12) / (g11 + g22 - 2 g12) for g1 and beta * g2 = g2
        w1, w2 = build_rule('torchjd:MGDAWeighting')(gramian * scale, [1.0, 1.0])
        assert (w1, w2) == pytest.approx((2.5 / 4, 1.5 / 4), rel=1e-3)
    with pytest.raises(ValueError, match="no Gramian weighting 'Nothing'; it has .*PCGradWeighting"):
        build_rule('torchjd:Nothing')
