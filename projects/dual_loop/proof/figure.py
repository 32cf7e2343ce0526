"""The figures of docs/proof.md: what the arms taught, to say and to find new names, and how they learned."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dual_loop.visualization.palette import CURVES, PAGE

from .plan import BEST_SUPERVISED_STEPS, RATE, STEPS
from .tables import interval

SAID, FOUND = 'cycle/accuracy_new_names', 'held_out/ciou_new'
#: Arm -> what the figures call it; in :func:`figure` all others are grey points without a name.
NAMED = {
    'supervised': 'captioned scenes alone', 'loop1': '+ loop 1, bridge and denoising', 'loop2': '+ loop 2',
    'both': '+ both, bridge and denoising', 'discrete': "+ both, the teacher's words as they are",
    'ceiling': 'all captions, with masks',
}
#: Logged loss -> title of its panel in :func:`curves`.
PANELS = {
    'supervised/mask': 'captioned scenes: mask', 'supervised/caption': 'captioned scenes: caption',
    'loop1/mask': 'loop 1: mask', 'loop2/caption': 'loop 2: caption',
}
POINTS_PER_INCH = 200

Results = Sequence[Mapping[str, Any]]


def shown(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the figures show of all results: the arms in equal steps on the validation scenes, or, as soon as the test
    scenes were looked at, the main comparison in equal time on these, with the best length of ``supervised``."""
    of_five = [result for result in results if result['percent'] == '5' and result['rate'] == RATE]
    tested = [result for result in of_five if result['held_out'] == 'test']
    longest = {arm: max(result['steps'] for result in tested if result['arm'] == arm)
               for arm in {result['arm'] for result in tested}}
    return [result for result in tested if result['steps'] == longest[result['arm']] or
            (result['arm'], result['steps']) == ('supervised', BEST_SUPERVISED_STEPS)] or [
        result for result in of_five if result['held_out'] == 'val' and result['steps'] == STEPS]


def grouped(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """(arm, steps) -> its seeds, the named arms first and in their order.

    Raises:
        ValueError: there are none.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result['arm'], result['steps']), []).append(result)
    if not groups:
        raise ValueError('there is no result to draw: run a stage first')
    names = [*NAMED]
    return dict(sorted(groups.items(), key=lambda each: (each[0][0] not in NAMED, names.index(each[0][0])
                                                         if each[0][0] in NAMED else 0, each[0])))


def colour(arm: str) -> str:
    return CURVES[[*NAMED].index(arm) % len(CURVES)][0] if arm in NAMED else PAGE['faint'][0]


def figure(results: Iterable[Mapping[str, Any]]) -> Figure:
    """A point for each arm and length: share of new names said right, and cIoU of phrases with new names.

    Args:
        results: those that are :func:`shown`. Several seeds become their mean with its 95 % interval.

    Raises:
        ValueError: there are none.
    """
    groups = grouped(results)
    drawing = Figure(figsize=(7.2, 3.9), layout='constrained')
    axes = drawing.add_subplot()
    axes.set_xlabel('new names said right in descriptions')
    axes.set_ylabel('phrases with new names: cIoU')
    plain(axes)
    before = next(iter(groups.values()))[0]['before']
    axes.plot(before[SAID], before[FOUND], 'x', color=PAGE['faint'][0], label='before')
    longest = dict(groups.keys())  # the steps of an arm ascend
    for (arm, steps), runs in groups.items():
        (x, width), (y, height) = (interval([run['after'][name] for run in runs]) for name in (SAID, FOUND))
        several, shorter = len(runs) > 1, steps < longest[arm]
        axes.errorbar(x, y, xerr=width if several else None, yerr=height if several else None, fmt='o',
                      color=colour(arm), markerfacecolor='white' if shorter else None, capsize=2,
                      markersize=6 if arm in NAMED else 3,
                      label=NAMED[arm] + (f', {steps} steps' if shorter else '') if arm in NAMED else None)
    axes.legend(loc='upper left', fontsize=9, frameon=False)
    return drawing


def curves(results: Iterable[Mapping[str, Any]]) -> Figure:
    """Losses of the named arms over their time, each in its longest runs: mean of the seeds, and the range of these.

    Args:
        results: those that are :func:`shown`.

    Raises:
        ValueError: there are none.
    """
    groups = {arm: runs for (arm, _), runs in grouped(results).items() if arm in NAMED}
    drawing = Figure(figsize=(9.0, 4.6), layout='constrained')
    for axes, (loss, title) in zip(drawing.subplots(2, 2).flat, PANELS.items()):
        axes.set_title(title, fontsize=9)
        plain(axes)
        for arm, runs in groups.items():
            if loss in runs[0]['curves']:
                time = np.array(runs[0]['curves'][loss]['steps']) / runs[0]['steps']
                values = np.array([run['curves'][loss]['values'] for run in runs])
                axes.plot(time, values.mean(0), color=colour(arm), label=NAMED[arm], linewidth=1.2)
                axes.fill_between(time, values.min(0), values.max(0), color=colour(arm), alpha=0.2, linewidth=0)
    drawing.supxlabel('share of the time', fontsize=9)
    legend(drawing)
    return drawing


def shares(results: Iterable[Mapping[str, Any]]) -> Figure:
    """What the arms say and find with captions for more and more scenes: each in its longest runs, the mean of the
    seeds with its 95 % interval; of ``supervised``, hollow, in the length that is best for what the panel shows.

    Args:
        results: those on the test scenes are drawn; of ``ceiling``, which has all captions at any share, a line.

    Raises:
        ValueError: there are none.
    """
    groups: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for result in results:
        if result['held_out'] == 'test':
            groups.setdefault((result['arm'], int(result['percent']), result['steps']), []).append(result)
    if not groups:
        raise ValueError('there is no result on the test scenes to draw: run the stage shares first')
    percents = sorted({percent for _, percent, _ in groups})
    drawing = Figure(figsize=(9.0, 3.4), layout='constrained')
    for axes, name, title in zip(drawing.subplots(1, 2), (SAID, FOUND), ('new names said right in descriptions',
                                                                         'phrases with new names: cIoU')):
        found = {key: interval([run['after'][name] for run in runs]) for key, runs in sorted(groups.items())}
        longest = {(arm, percent): value for (arm, percent, _), value in found.items()}  # the steps of an arm ascend
        best = {key: max(value for (*other, _), value in found.items() if other == [*key]) for key in longest}
        lines = [(arm, longest, 'o-', NAMED[arm]) for arm in NAMED]
        for arm, values, style, label in [*lines, ('supervised', best, 'o:', f'{NAMED["supervised"]}, best length')]:
            at = [percent for percent in percents if (arm, percent) in values]
            if at and arm == 'ceiling':
                axes.axhline(values[arm, at[0]][0], color=colour(arm), label=label, linewidth=1.2)
            elif at:
                means, widths = zip(*(values[arm, percent] for percent in at))
                axes.errorbar(at, means, yerr=widths, fmt=style, color=colour(arm), label=label, capsize=2,
                              linewidth=1.2, markersize=5, markerfacecolor='white' if values is best else None)
        axes.axhline(next(iter(groups.values()))[0]['before'][name], color=PAGE['faint'][0], label='before',
                     linestyle='--', linewidth=1.2)
        axes.set_title(title, fontsize=9)
        axes.set_xscale('log')
        axes.set_xticks(percents, [f'{percent} %' for percent in percents])
        axes.minorticks_off()
        axes.margins(x=0.06)
        plain(axes)
    drawing.supxlabel('scenes that have captions with their masks', fontsize=9)
    legend(drawing)
    return drawing


def legend(drawing: Figure) -> None:
    """One for all panels, above them."""
    labels = {label: line for axes in drawing.axes for line, label in zip(*axes.get_legend_handles_labels())}
    drawing.legend([*labels.values()], [*labels], loc='outside upper center', ncols=3, fontsize=9, frameon=False)


def plain(axes: Any) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color=PAGE['line'][0])
    axes.set_axisbelow(True)


def write_figures(results: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Draw :func:`figure` as proof.png, :func:`curves` as proof_curves.png and, as soon as the test scenes were looked
    at, :func:`shares` as proof_shares.png; the same results give the same bytes."""
    results = [*results]
    drawings = dict(proof=figure(shown(results)), proof_curves=curves(shown(results)))
    if any(result['held_out'] == 'test' for result in results):
        drawings['proof_shares'] = shares(results)
    for name, drawing in drawings.items():
        drawing.savefig(folder / f'{name}.png', format='png', dpi=POINTS_PER_INCH, metadata=dict(Software=None))
