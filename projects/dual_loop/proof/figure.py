"""The main figure of docs/proof.md: what each arm of the proof taught, to say new names and to find what they mean."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dual_loop.visualization.palette import CURVES, PAGE

from .plan import RATE, STEPS
from .tables import interval

SAID, FOUND = 'cycle/accuracy_new_names', 'held_out/ciou_new'
#: Arm -> what the figure calls it; all others are grey points without a name.
NAMED = {
    'supervised': 'captioned scenes alone', 'loop1': '+ loop 1 as specified', 'loop2': '+ loop 2',
    'both': '+ both, as specified', 'discrete': "+ both, the teacher's words in the slot", 'ceiling': 'all captions',
}
POINTS_PER_INCH = 200


def shown(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the figure shows of all results: the arms in equal steps on the validation scenes, or, as soon as the test
    scenes were looked at, the main comparison in equal time on these."""
    of_five = [result for result in results if result['percent'] == '5' and result['rate'] == RATE]
    tested = [result for result in of_five if result['held_out'] == 'test']
    longest = {arm: max(result['steps'] for result in tested if result['arm'] == arm)
               for arm in {result['arm'] for result in tested}}
    return [result for result in tested if result['steps'] == longest[result['arm']]] or [
        result for result in of_five if result['held_out'] == 'val' and result['steps'] == STEPS]


def figure(results: Iterable[Mapping[str, Any]]) -> Figure:
    """A point for each arm and length: share of new names said right, and cIoU of phrases with new names.

    Args:
        results: those that are :func:`shown`. Several seeds become their mean with its 95 % interval.

    Raises:
        ValueError: there are none.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result['arm'], result['steps']), []).append(result)
    if not groups:
        raise ValueError('there is no result to draw: run a stage first')
    drawing = Figure(figsize=(7.2, 3.9), layout='constrained')
    axes = drawing.add_subplot()
    axes.set_xlabel('new names said right in descriptions')
    axes.set_ylabel('phrases with new names: cIoU')
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color=PAGE['line'][0])
    axes.set_axisbelow(True)
    before = next(iter(groups.values()))[0]['before']
    axes.plot(before[SAID], before[FOUND], 'x', color=PAGE['faint'][0])
    note(axes, 'before', before[SAID], before[FOUND], PAGE['faint'][0])
    lengths = {arm: sum(other == arm for other, _ in groups) for arm, _ in groups}
    for (arm, steps), runs in sorted(groups.items()):
        (x, width), (y, height) = (interval([run['after'][name] for run in runs]) for name in (SAID, FOUND))
        colour = CURVES[[*NAMED].index(arm) % len(CURVES)][0] if arm in NAMED else PAGE['faint'][0]
        several = len(runs) > 1
        axes.errorbar(x, y, xerr=width if several else None, yerr=height if several else None, fmt='o', color=colour,
                      markersize=6 if arm in NAMED else 3, capsize=2)
        if arm in NAMED:
            note(axes, NAMED[arm] + (f', {steps} steps' if lengths[arm] > 1 else ''), x, y, colour)
    return drawing


def note(axes: Any, text: str, x: float, y: float, colour: str) -> None:
    """A name above and right of a point; left of it in the right half of the figure's usual range."""
    left = x > 0.5
    axes.annotate(text, (x, y), xytext=(-6 if left else 6, 6), textcoords='offset points', color=colour, fontsize=9,
                  horizontalalignment='right' if left else 'left')


def write_figure(results: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Draw :func:`figure` into a PNG file; the same results give the same bytes."""
    figure(results).savefig(file, format='png', dpi=POINTS_PER_INCH, metadata=dict(Software=None))
