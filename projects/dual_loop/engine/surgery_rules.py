"""Surgery rules: how the gradients of several loops are weighted before they are summed.

A rule sees no gradient, only the N x N Gramian of the world-averaged gradients over the parameters that all N reach,
and gives N weights. A rule of one's own is a function or class registered in :data:`SURGERY_RULES` (docs/extending.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.registry import Registry
from torch import Tensor

#: ``rule(gramian, betas) -> weights``; gramian is an (N, N) fp64 tensor on the CPU, betas are the N given weights, that
#: of the first gradient being 1 unless it is not among the N.
Rule = Callable[[Tensor, Sequence[float]], Sequence[float]]
SURGERY_RULES = Registry('surgery rule', locations=['dual_loop.engine.surgery_rules'])

# A gradient shorter than this share of the other one does not change an fp32 sum of the two; its direction is noise.
NEGLIGIBLE = torch.finfo(torch.float32).eps


def negligible(squared: float, other_squared: float) -> bool:
    """Whether a squared norm is nothing beside another one."""
    # Relative on purpose: gradients of norm 1e-12 are as good as any, and an absolute bound would switch surgery off.
    return squared <= NEGLIGIBLE**2 * other_squared


@SURGERY_RULES.register_module()
def orthogonal(gramian: Tensor, betas: Sequence[float]) -> list[float]:
    """The first gradient whole; each later one without its part in the span of those before it, times its beta.

    Gram-Schmidt, whether they agree or not. Of two: g1 + beta * (g2 - <g1,g2> / <g1,g1> * g1).
    """
    products = gramian.tolist()
    weights = [0.0] * len(products)
    basis: list[tuple[list[float], float]] = []  # directions, as weights of the gradients, with their squared norms
    for number, beta in enumerate(betas):
        rest = [float(other == number) for other in range(len(products))]
        for direction, squared in basis:
            along = sum(weight * products[number][other] for other, weight in enumerate(direction) if weight)
            if not negligible(squared, products[number][number]):
                coefficient = along / squared
                rest = [mine - coefficient * theirs for mine, theirs in zip(rest, direction)]
        weights = [weight + beta * part for weight, part in zip(weights, rest)]
        squared = sum(a * b * products[i][j] for i, a in enumerate(rest) for j, b in enumerate(rest) if a and b)
        # What is left of a gradient that lies in the span of the others is rounding, and no direction.
        if number == 0 or squared > 1e-12 * products[number][number]:
            basis.append((rest, squared))
    return weights


@SURGERY_RULES.register_module()
def pcgrad(gramian: Tensor, betas: Sequence[float]) -> list[float]:
    """PCGrad (Yu et al., 2020, arXiv:2001.06782) of the gradients times their betas, summed.

    Each gradient loses its part along every other one that it conflicts with, in the order of the config (the paper
    shuffles). With two gradients the order plays no part, and at beta = 1 the sum is twice UPGrad (Quinton and Rey,
    2024, arXiv:2406.16232), which takes the mean.
    """
    products = gramian.tolist()
    weights = [0.0] * len(products)
    for number, beta in enumerate(betas):
        mine = [beta * (other == number) for other in range(len(products))]
        own = beta**2 * products[number][number]
        for other, other_beta in enumerate(betas):
            theirs = other_beta**2 * products[other][other]
            if other == number or negligible(own, theirs) or negligible(theirs, own):
                continue
            along = sum(weight * products[each][other] for each, weight in enumerate(mine) if weight)
            if along < 0:
                mine[other] -= along / products[other][other]
        weights = [weight + part for weight, part in zip(weights, mine)]
    return weights


@SURGERY_RULES.register_module(name='sum')
def plain_sum(gramian: Tensor, betas: Sequence[float]) -> list[float]:
    """The plain sum, bit for bit: the baseline without surgery. Betas play no part."""
    return [1.0] * len(gramian)


def build_rule(rule: str | dict[str, Any] | Rule) -> Rule:
    """The rule of a config: a registered name, ``torchjd:NAME`` for a Gramian weighting of TorchJD, the settings of a
    registered class, or a function.

    Raises:
        ValueError: nothing has that name.
    """
    if not isinstance(rule, str):
        return SURGERY_RULES.build(rule) if isinstance(rule, dict) else rule
    if rule.startswith('torchjd:'):
        return _torchjd_rule(rule.removeprefix('torchjd:'))
    found = SURGERY_RULES.get(rule)
    if found is None:
        raise ValueError(f"unknown surgery rule '{rule}'; there are {', '.join(SURGERY_RULES.module_dict)} and "
                         'torchjd:NAME')
    return found() if isinstance(found, type) else found


def _torchjd_rule(name: str) -> Rule:
    """The weighting ``torchjd.aggregation.<name>`` or ``<name>Weighting``, of the gradients times their betas."""
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ImportError(f"surgery rule 'torchjd:{name}' needs TorchJD: pip install torchjd") from error
    known = [key for key in dir(aggregation) if key.endswith('Weighting') and key != 'Weighting']
    full_name = name if name in known else f'{name}Weighting'
    if full_name not in known:
        raise ValueError(f"TorchJD has no Gramian weighting '{name}'; it has {', '.join(known)}")
    weighting = getattr(aggregation, full_name)()

    def rule(gramian: Tensor, betas: Sequence[float]) -> list[float]:
        scale = torch.tensor(betas, dtype=torch.float64)
        scaled = gramian * scale.outer(scale)
        # TorchJD's own bounds are absolute (a trace below 1e-4 counts as zero), so it is given a Gramian of trace 1.
        trace = scaled.trace()
        weights = weighting(scaled / trace if trace > 0 else scaled).tolist()
        return [weight * beta for weight, beta in zip(weights, betas)]

    return rule
