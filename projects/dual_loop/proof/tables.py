"""Means and intervals over the seeds of the proof's runs, as Markdown tables."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import t

#: Title -> figure of the held-out scenes.
FIGURES = {
    'cIoU, new names': 'held_out/ciou_new',
    'old names': 'held_out/ciou_old',
    'relations': 'held_out/ciou_relation',
    'new names said right': 'cycle/accuracy_new_names',
    'old names said right': 'cycle/accuracy_old_names',
    'all four right': 'cycle/accuracy_all_four',
    'cycle IoU': 'cycle/generated_iou',
    'of true captions': 'cycle/true_iou',
}
COVERAGE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; NaN of a single value."""
    if len(values) < 2:
        return values[0], float('nan')
    width = t.ppf((1 + COVERAGE) / 2, len(values) - 1) * statistics.stdev(values) / len(values)**0.5
    return statistics.fmean(values), float(width)


def differences(runs: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]], figure: str) -> list[float]:
    """``runs`` minus ``others`` of each seed that both have.

    Args:
        runs, others: results of an arm in one share, length and set of held-out scenes.
        figure: of the results' ``after``.

    Raises:
        ValueError: an arm has several runs of one seed.
    """
    found: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for seeds, results in zip(found, (runs, others)):
        for result in results:
            if result['seed'] in seeds:
                raise ValueError(f'{result["arm"]} has several runs of seed {result["seed"]}')
            seeds[result['seed']] = result['after'][figure]
    return [found[0][seed] - found[1][seed] for seed in sorted(found[0].keys() & found[1].keys())]


def difference_table(results: Iterable[Mapping[str, Any]], arm: str) -> str:
    """The longest runs of ``arm`` minus those of each other arm and length: mean of the common seeds, and its interval.

    Args:
        results: of one share of captions and one set of held-out scenes.
        arm: that is compared.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result['arm'], result['steps']), []).append(result)
    steps = max(length for name, length in groups if name == arm)
    lines = [f'| {arm}, {steps} steps, less | seeds | ' + ' | '.join(FIGURES) + ' |',
             '|---|---|' + '---|' * len(FIGURES)]
    for (other, length), runs in sorted(groups.items()):
        if other != arm:
            found = [differences(groups[arm, steps], runs, figure) for figure in FIGURES.values()]
            cells = [f'{mean:+.3f} [{mean - width:+.3f}, {mean + width:+.3f}]' for mean, width in map(interval, found)]
            lines.append(f'| {other}, {length} steps | {len(found[0])} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """A line for each arm, share, length and rate: mean of its seeds and, of several, its interval."""
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[key] for key in ('percent', 'arm', 'steps', 'rate')), []).append(result)
    lines = ['| arm | captions | steps | rate | s a step | seeds | ' + ' | '.join(FIGURES) + ' |',
             '|---|' + '---|' * (5 + len(FIGURES))]
    for (percent, arm, steps, rate), runs in sorted(groups.items(), key=lambda each: (int(each[0][0]), *each[0][1:])):
        seconds = statistics.median(run['seconds'] for run in runs)
        cells = [arm, f'{percent} %', str(steps), f'{rate:g}', f'{seconds:.3f}', str(len(runs))]
        for figure in FIGURES.values():
            values = [run['after'][figure] for run in runs if figure in run['after']]
            mean, width = interval(values) if values else (float('nan'), float('nan'))
            cells.append('-' if mean != mean else f'{mean:.3f}' if width != width else f'{mean:.3f} ± {width:.3f}')
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
