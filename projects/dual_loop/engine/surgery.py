"""Gradient surgery: one gradient from the gradients of several loops.

Surgery is not linear, so it must see world-averaged gradients: per-rank surgery followed by an average would be another
algorithm, one that depends on the number of ranks. A rule (:mod:`dual_loop.engine.surgery_rules`) gives the weights.
The loops reach different parameters, so there is one Gramian, and one application of the rule, for each set of
gradients; parameters that one gradient alone reaches bypass the rule.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement

import torch
from torch import Tensor

from .flat import FlatLayout
from .surgery_rules import Rule, build_rule, negligible

# Elements per partial dot product: 32 MiB as fp64, so the casts need no second buffer of the gradients' size.
CHUNK = 1 << 22


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
    def from_gramian(cls, gramian: Tensor, first: int = 0, second: int = 1) -> 'GradientPair':
        """Of two gradients, by their numbers, of an (N, N) Gramian."""
        g11, g12, g22 = (gramian[place].item() for place in ((first, first), (first, second), (second, second)))
        norm1, norm2 = math.sqrt(g11), math.sqrt(g22)
        cosine = max(-1.0, min(1.0, g12 / norm1 / norm2)) if norm1 > 0 and norm2 > 0 else 0.0
        return cls(norm1, norm2, cosine, 0.0 if negligible(g11, g22) else g12 / g11)


@dataclass(frozen=True)
class SurgeryStats:
    """What one surgery saw and did. Gradients are counted from 0 here, and from 1 in the log.

    Attributes:
        finite_each: whether every element of each gradient is finite. When one is not, nothing else is filled in.
        gramian: (N, N) fp64, each product over the parameters that both gradients share.
        groups: (N, N) of each parameter group.
        weights: set of gradients -> the weights of the parameters that just these reach.
        grad_norm: of the combined gradient over all trainables, before clipping.
        clipped_norm: the same after clipping.
    """

    finite_each: tuple[bool, ...]
    gramian: Tensor | None = None
    groups: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[tuple[int, ...], tuple[float, ...]] = field(default_factory=dict)
    grad_norm: float = math.nan
    clipped_norm: float = math.nan

    @property
    def finite(self) -> bool:
        """Whether all gradients are finite, so that the step may be taken."""
        return all(self.finite_each)

    def scalars(self) -> dict[str, float]:
        """Flat names for the log: ``grad_norm1``, ``cosine``, ``w1``, ``cosine/lora`` ...; empty if not finite.

        ``cosine`` and ``coefficient`` are of the first two gradients; of others the names have both numbers, as in
        ``cosine13``. Weights are those of the largest set of gradients, and others have the set in their names.
        """
        if not self.finite:
            return {}
        flat = _figures(self.gramian)
        sets = sorted((each for each in self.weights if len(each) > 1), key=len, reverse=True)
        for members in sets:
            suffix = '' if members == sets[0] else '/' + '+'.join(str(number + 1) for number in members)
            flat |= {f'w{number + 1}{suffix}': weight for number, weight in zip(members, self.weights[members])}
        flat |= dict(grad_norm=self.grad_norm, grad_norm_clipped=self.clipped_norm)
        for group, gramian in self.groups.items():
            flat |= {f'{name}/{group}': value for name, value in _figures(gramian).items()}
        return flat


def _figures(gramian: Tensor) -> dict[str, float]:
    figures = {f'grad_norm{number + 1}': math.sqrt(gramian[number, number].item()) for number in range(len(gramian))}
    for first, second in combinations(range(len(gramian)), 2):
        pair = GradientPair.from_gramian(gramian, first, second)
        suffix = '' if (first, second) == (0, 1) else f'{first + 1}{second + 1}'
        figures |= {f'cosine{suffix}': pair.cosine, f'coefficient{suffix}': pair.coefficient}
    return figures


class GradientSurgery:
    """Combine the flat gradients of the loops by a rule and clip the result.

    Args:
        rule: ``orthogonal``, ``pcgrad``, ``sum``, ``torchjd:NAME`` or one of your own, see
            :func:`~dual_loop.engine.surgery_rules.build_rule`.
        beta: weight of each gradient after the first, or one number for each of them in the order of the config; also
            for the parameters that only such a gradient reaches. ``sum`` ignores it.
        max_grad_norm: bound on the norm of the combined gradient over all trainables; None switches clipping off.
    """

    def __init__(self, rule: str | dict | Rule = 'orthogonal', beta: float | Sequence[float] = 0.5,
                 max_grad_norm: float | None = 1.0):
        for each in beta if isinstance(beta, Sequence) else [beta]:
            if not 0 <= each < math.inf:
                raise ValueError(f'surgery beta must be a finite number >= 0, got {each}')
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f'max_grad_norm must be positive, or None for no clipping, got {max_grad_norm}')
        self.rule = build_rule(rule)
        self.beta = 1.0 if rule == 'sum' else beta
        self.max_grad_norm = max_grad_norm

    def betas(self, count: int) -> tuple[float, ...]:
        """The weight of each of ``count`` gradients; that of the first is 1."""
        if not isinstance(self.beta, Sequence):
            return (1.0, ) + (float(self.beta), ) * (count - 1)
        if len(self.beta) != count - 1:
            raise ValueError(f'train_cfg.surgery.beta={list(self.beta)} has {len(self.beta)} numbers for {count - 1} '
                             'gradients after the first')
        return (1.0, *map(float, self.beta))

    @torch.no_grad()
    def combine(self, gradients: Sequence[Tensor], layout: FlatLayout,
                out: Tensor | None = None) -> tuple[Tensor | None, SurgeryStats]:
        """One clipped gradient from N.

        Args:
            gradients: (layout.numel,) fp32 each, accumulated and averaged over ranks, so that every rank does the same
                here.
            layout: what lies where in them.
            out: buffer for the result; the first gradient may be given, to save memory. Defaults to a new one.

        Returns:
            The (layout.numel,) combined gradient, or None when a gradient is not finite (``out`` is then untouched and
            the step must be skipped), and the statistics.
        """
        for gradient in gradients:
            layout.check(gradient)
        if any(out is gradient for gradient in gradients[1:]):
            raise ValueError('out may be the first gradient, but no other: those are still read after out is written')
        betas = self.betas(len(gradients))
        groups = gramians(gradients, layout)
        # Squares of fp32 numbers cannot overflow in fp64: their sum is finite exactly when every element is.
        total = torch.stack(list(groups.values())).sum(0)
        finite = tuple(total.diagonal().isfinite().tolist())
        if not all(finite):
            return None, SurgeryStats(finite)
        reached = layout.reached_by
        of_sets = {members: sum(groups[group] for group in groups if reached[group] == members)
                   for members in dict.fromkeys(reached.values()) if members}
        weights = {members: self._weights(gramian, members, betas) for members, gramian in of_sets.items()}
        shared = sum((gramian for members, gramian in of_sets.items() if len(members) > 1), torch.zeros_like(total))

        out = torch.empty_like(gradients[0]) if out is None else out
        for group, run in layout.runs:
            members = reached[group]
            for place, (number, weight) in enumerate(zip(members, weights[members])):
                if place == 0:
                    torch.mul(gradients[number][run], weight, out=out[run])
                else:
                    out[run].add_(gradients[number][run], alpha=weight)
        grad_norm = clipped_norm = torch.linalg.vector_norm(out, dtype=torch.float64).item()
        if self.max_grad_norm is not None and grad_norm > self.max_grad_norm:
            out.mul_(self.max_grad_norm / grad_norm)
            clipped_norm = float(self.max_grad_norm)
        return out, SurgeryStats(finite, shared, groups, weights, grad_norm, clipped_norm)

    def _weights(self, gramian: Tensor, members: tuple[int, ...], betas: Sequence[float]) -> tuple[float, ...]:
        """Weights of the gradients ``members`` over the parameters that just these reach."""
        if len(members) == 1:
            return (betas[members[0]], )
        part = gramian[list(members)][:, list(members)]
        return tuple(map(float, self.rule(part, [betas[number] for number in members])))


def gramians(gradients: Sequence[Tensor], layout: FlatLayout) -> dict[str, Tensor]:
    """Group -> its (N, N) fp64 Gramian on the CPU, with a single transfer from the device.

    Args:
        gradients: (layout.numel,) fp32 each, as many as the layout has.
        layout: what lies where in them; a product over a group that not both gradients reach is 0.
    """
    count = len(gradients)
    pairs = list(combinations_with_replacement(range(count), 2))
    nothing = gradients[0].new_zeros((), dtype=torch.float64)
    sums = {group: nothing.expand(len(pairs)).clone() for group in layout.groups}
    for group, run in layout.runs:
        members = layout.reached_by[group]
        for pieces in zip(*(gradients[number][run].split(CHUNK) for number in members)):
            # In fp64 the products are exact and neither overflow nor vanish, also for gradients of norm 1e-30.
            parts = dict(zip(members, (piece.double() for piece in pieces)))
            sums[group] += torch.stack(
                [parts[i] @ parts[j] if i in parts and j in parts else nothing for i, j in pairs])
    products = torch.stack(list(sums.values())).cpu()
    place = {pair: number for number, pair in enumerate(pairs)}
    places = [place[min(i, j), max(i, j)] for i in range(count) for j in range(count)]
    return {group: row[places].view(count, count) for group, row in zip(sums, products)}
