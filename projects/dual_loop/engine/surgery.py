"""Gradient surgery: one gradient from the gradients of the two loops.

A rule sees no gradient, only the 2 x 2 Gramian [[<g1,g1>, <g1,g2>], [<g1,g2>, <g2,g2>]] of the world-averaged gradients
over the parameters that both loops reach, and gives two weights: g = w1 * g1 + w2 * g2. Surgery is not linear, so it
must see averages: per-rank surgery followed by an average would be another algorithm, one that depends on the number
of ranks. Parameters that one loop alone reaches bypass the rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .flat import FlatLayout

Rule = Callable[[Tensor, float], tuple[float, float]]
SURGERY_RULES: dict[str, Rule] = {}

# A gradient shorter than this share of the other one does not change an fp32 sum of the two; its direction is noise.
NEGLIGIBLE = torch.finfo(torch.float32).eps
# Elements per partial dot product: 32 MiB as fp64, so the casts need no second buffer of the gradients' size.
CHUNK = 1 << 22


def surgery_rule(name: str) -> Callable[[Rule], Rule]:
    """Register ``function(gramian, beta) -> (w1, w2)`` as ``name``; gramian is a (2, 2) fp64 tensor on the CPU."""

    def register(function: Rule) -> Rule:
        if name in SURGERY_RULES:
            raise KeyError(f"surgery rule '{name}' is registered twice")
        SURGERY_RULES[name] = function
        return function

    return register


def _negligible(squared: float, other_squared: float) -> bool:
    # Relative on purpose: gradients of norm 1e-12 are as good as any, and an absolute bound would switch surgery off.
    return squared <= NEGLIGIBLE**2 * other_squared


@surgery_rule('orthogonal')
def orthogonal(gramian: Tensor, beta: float) -> tuple[float, float]:
    """g1 + beta * (g2 - <g1,g2> / <g1,g1> * g1): loop 2 never moves along g1, whether the two agree or not."""
    (g11, g12), (_, g22) = gramian.tolist()
    coefficient = 0.0 if _negligible(g11, g22) else g12 / g11
    return 1.0 - beta * coefficient, beta


@surgery_rule('pcgrad')
def pcgrad(gramian: Tensor, beta: float) -> tuple[float, float]:
    """PCGrad (Yu et al., 2020, arXiv:2001.06782) of g1 and beta * g2, summed: mutual projection on conflict only.

    With two gradients the projections do not depend on their order, hence the closed form. At beta = 1 it is twice
    UPGrad (Quinton and Rey, 2024, arXiv:2406.16232), which takes the mean.
    """
    (g11, g12), (_, g22) = gramian.tolist()
    scaled22 = beta**2 * g22
    if g12 >= 0 or _negligible(g11, scaled22) or _negligible(scaled22, g11):
        return 1.0, beta
    return 1.0 - beta * g12 / g11, beta - g12 / g22


@surgery_rule('sum')
def plain_sum(gramian: Tensor, beta: float) -> tuple[float, float]:
    """g1 + g2, bit for bit: the baseline without surgery. ``beta`` plays no part."""
    return 1.0, 1.0


def _torchjd_rule(name: str) -> Rule:
    """The weighting ``torchjd.aggregation.<name>`` or ``<name>Weighting``, applied to g1 and beta * g2."""
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ImportError(f"surgery rule 'torchjd:{name}' needs TorchJD: pip install torchjd") from error
    known = [key for key in dir(aggregation) if key.endswith('Weighting') and key != 'Weighting']
    full_name = name if name in known else f'{name}Weighting'
    if full_name not in known:
        raise ValueError(f"TorchJD has no Gramian weighting '{name}'; it has {', '.join(known)}")
    weighting = getattr(aggregation, full_name)()

    def rule(gramian: Tensor, beta: float) -> tuple[float, float]:
        scale = torch.tensor([1.0, beta], dtype=torch.float64)
        scaled = gramian * scale.outer(scale)
        # TorchJD's own bounds are absolute (a trace below 1e-4 counts as zero), so it is given a Gramian of trace 1.
        trace = scaled.trace()
        u1, u2 = weighting(scaled / trace if trace > 0 else scaled).tolist()
        return u1, beta * u2

    return rule


def find_rule(name: str) -> Rule:
    """The rule ``name`` of ``SURGERY_RULES``, or ``torchjd:NAME`` for a Gramian weighting of TorchJD."""
    if name.startswith('torchjd:'):
        return _torchjd_rule(name.removeprefix('torchjd:'))
    if name not in SURGERY_RULES:
        raise ValueError(f"unknown surgery rule '{name}'; there are {', '.join(SURGERY_RULES)} and torchjd:NAME")
    return SURGERY_RULES[name]


@dataclass(frozen=True)
class GradientPair:
    """How two gradients lie to each other over some parameters."""

    norm1: float
    norm2: float
    cosine: float
    """0 when one of the two is zero."""
    coefficient: float
    """<g1,g2> / <g1,g1>, what ``orthogonal`` takes off; 0 when g1 is negligible."""

    @classmethod
    def from_gramian(cls, gramian: Tensor) -> 'GradientPair':
        (g11, g12), (_, g22) = gramian.tolist()
        norm1, norm2 = math.sqrt(g11), math.sqrt(g22)
        cosine = max(-1.0, min(1.0, g12 / norm1 / norm2)) if norm1 > 0 and norm2 > 0 else 0.0
        return cls(norm1, norm2, cosine, 0.0 if _negligible(g11, g22) else g12 / g11)


@dataclass(frozen=True)
class SurgeryStats:
    """What one surgery saw and did.

    Attributes:
        finite1, finite2: whether every element of g1, g2 is finite. When one is not, nothing else is filled in.
        shared: norms, cosine and coefficient over the parameters that both loops reach.
        groups: the same for each parameter group, the unshared ones included.
        weights: (w1, w2) of the shared parameters.
        grad_norm: of the combined gradient over all trainables, before clipping.
        clipped_norm: the same after clipping.
    """

    finite1: bool
    finite2: bool
    shared: GradientPair | None = None
    groups: dict[str, GradientPair] = field(default_factory=dict)
    weights: tuple[float, float] | None = None
    grad_norm: float = math.nan
    clipped_norm: float = math.nan

    @property
    def finite(self) -> bool:
        """Whether both gradients are finite, so that the step may be taken."""
        return self.finite1 and self.finite2

    def scalars(self) -> dict[str, float]:
        """Flat names for the log: ``grad_norm1``, ``cosine``, ``w1``, ``cosine/lora`` ...; empty if not finite."""
        if not self.finite:
            return {}
        flat = dict(grad_norm1=self.shared.norm1, grad_norm2=self.shared.norm2, cosine=self.shared.cosine,
                    coefficient=self.shared.coefficient, w1=self.weights[0], w2=self.weights[1],
                    grad_norm=self.grad_norm, grad_norm_clipped=self.clipped_norm)
        for group, pair in self.groups.items():
            flat |= {f'grad_norm1/{group}': pair.norm1, f'grad_norm2/{group}': pair.norm2,
                     f'cosine/{group}': pair.cosine, f'coefficient/{group}': pair.coefficient}
        return flat


class GradientSurgery:
    """Combine the flat gradients of the two loops by a rule and clip the result.

    Args:
        rule: ``orthogonal``, ``pcgrad``, ``sum`` or ``torchjd:NAME``.
        beta: weight of loop 2, also for the parameters that only loop 2 reaches; ``sum`` ignores it.
        max_grad_norm: bound on the norm of the combined gradient over all trainables; None switches clipping off.
    """

    def __init__(self, rule: str = 'orthogonal', beta: float = 0.5, max_grad_norm: float | None = 1.0):
        if not 0 <= beta < math.inf:
            raise ValueError(f'surgery beta must be a finite number >= 0, got {beta}')
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f'max_grad_norm must be positive, or None for no clipping, got {max_grad_norm}')
        self.rule_name = rule
        self.rule = find_rule(rule)
        self.beta = 1.0 if rule == 'sum' else float(beta)
        self.max_grad_norm = max_grad_norm

    @torch.no_grad()
    def combine(self, g1: Tensor, g2: Tensor, layout: FlatLayout,
                out: Tensor | None = None) -> tuple[Tensor | None, SurgeryStats]:
        """One clipped gradient from two.

        Args:
            g1, g2: (layout.numel,) fp32, accumulated and averaged over ranks, so that every rank does the same here.
            layout: what lies where in them.
            out: buffer for the result; ``g1`` itself may be given, to save memory. Defaults to a new one.

        Returns:
            The (layout.numel,) combined gradient, or None when a gradient is not finite (``out`` is then untouched and
            the step must be skipped), and the statistics.
        """
        layout.check(g1)
        layout.check(g2)
        if out is g2:
            raise ValueError('out may be g1, but not g2: g2 is still read after out is written')
        gramians = _gramians(g1, g2, layout)
        total = torch.stack(list(gramians.values())).sum(0)
        # Squares of fp32 numbers cannot overflow in fp64: their sum is finite exactly when every element is.
        finite1, finite2 = total[0, 0].isfinite().item(), total[1, 1].isfinite().item()
        if not (finite1 and finite2):
            return None, SurgeryStats(finite1, finite2)

        shared = torch.zeros(2, 2, dtype=torch.float64)
        for group, gramian in gramians.items():
            shared += gramian if layout.is_shared(group) else 0
        weights = self.rule(shared, self.beta)

        out = torch.empty_like(g1) if out is None else out
        for group, run in layout.runs:
            w1, w2 = weights if layout.is_shared(group) else (1.0, self.beta)
            torch.mul(g1[run], w1, out=out[run]).add_(g2[run], alpha=w2)
        grad_norm = clipped_norm = torch.linalg.vector_norm(out, dtype=torch.float64).item()
        if self.max_grad_norm is not None and grad_norm > self.max_grad_norm:
            out.mul_(self.max_grad_norm / grad_norm)
            clipped_norm = float(self.max_grad_norm)
        return out, SurgeryStats(
            finite1, finite2, shared=GradientPair.from_gramian(shared),
            groups={group: GradientPair.from_gramian(gramian) for group, gramian in gramians.items()},
            weights=weights, grad_norm=grad_norm, clipped_norm=clipped_norm)


def _gramians(g1: Tensor, g2: Tensor, layout: FlatLayout) -> dict[str, Tensor]:
    """Group -> its (2, 2) fp64 Gramian on the CPU, with a single transfer from the device."""
    sums = {group: g1.new_zeros(3, dtype=torch.float64) for group in layout.groups}
    for group, run in layout.runs:
        for a, b in zip(g1[run].split(CHUNK), g2[run].split(CHUNK)):
            # In fp64 the products are exact and neither overflow nor vanish, also for gradients of norm 1e-30.
            a, b = a.double(), b.double()
            sums[group] += torch.stack((a @ a, a @ b, b @ b))
    triples = torch.stack(list(sums.values())).cpu()
    return {group: triple[[0, 1, 1, 2]].view(2, 2) for group, triple in zip(sums, triples)}
