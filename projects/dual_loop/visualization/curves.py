"""Line charts as inline SVG: of one run, or of several."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean

from .palette import CURVES

Series = tuple[Sequence[int], Sequence[float]]

WIDTH, HEIGHT = 300, 120
LEFT, BOTTOM = 46, 18  # room for the numbers at the axes
MAX_POINTS = 200


def curve(name: str, series: Series | Mapping[str, Series]) -> str:
    """Series as an ``<svg>``: faint as logged, bold as a moving average, a dashed line at zero if it is crossed.

    Long series are reduced to ``MAX_POINTS`` means of neighbours. Values that are not finite leave a gap.

    Args:
        name: of the quantity, for screen readers.
        series: (steps, values) of equal length, ascending in steps; or one of each run that has some, by the class of
            its colour, see :func:`colour_class`.
    """
    named = series if isinstance(series, Mapping) else {colour_class(0): series}
    for steps, values in named.values():
        if len(steps) != len(values):
            raise ValueError(f"curve '{name}': {len(steps)} steps but {len(values)} values")
    points = {css: reduce_points(*each) for css, each in named.items()}
    finite = [value for each in points.values() for _, value in each if math.isfinite(value)]
    if not finite:
        return '<p class="none">no finite value</p>'
    low, high = min(finite), max(finite)
    if low == high:  # a flat line runs through the middle
        low, high = low - (abs(low) or 1.0), high + (abs(high) or 1.0)
    first, last = (of(step for steps, _ in named.values() for step in steps) for of in (min, max))

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return 6 + (HEIGHT - BOTTOM - 6) * (high - value) / (high - low)

    def lines(css: str, points: list[tuple[float, float]]) -> str:
        pieces, piece = [], []
        for step, value in [*points, (0, math.nan)]:
            if math.isfinite(value):
                piece.append(f'{x(step):.1f},{y(value):.1f}')
            elif piece:
                pieces.append(piece * 2 if len(piece) == 1 else piece)  # a line of one point would not be drawn
                piece = []
        return ''.join(f'<polyline class="{css}" points="{" ".join(piece)}"/>' for piece in pieces)

    drawn = ''.join(f'<g class="{css}">{lines("raw", each)}{lines("smooth", smooth(each))}</g>'
                    for css, each in points.items())
    floor = HEIGHT - BOTTOM
    zero = f'<line class="zero" x1="{LEFT}" y1="{y(0):.1f}" x2="{WIDTH}" y2="{y(0):.1f}"/>' if low < 0 < high else ''
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(name)}</title>'
            f'<line class="frame" x1="{LEFT}" y1="{floor}" x2="{WIDTH}" y2="{floor}"/>{zero}{drawn}'
            f'<text x="{LEFT - 6}" y="10" text-anchor="end">{high:.3g}</text>'
            f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">{low:.3g}</text>'
            f'<text x="{LEFT}" y="{HEIGHT - 4}">{first}</text>'
            f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{last}</text></svg>')


def colour_class(number: int) -> str:
    """The class of the number-th run's colour in a page's style; colours come again after the last, dashed."""
    again, own = divmod(number, len(CURVES))
    return f'curve{own}' + ' again' * bool(again)


def reduce_points(steps: Sequence[int], values: Sequence[float]) -> list[tuple[float, float]]:
    """At most ``MAX_POINTS`` points (step, value): means of equally many neighbours."""
    size = math.ceil(len(steps) / MAX_POINTS) or 1
    return [(fmean(steps[i:i + size]), fmean(values[i:i + size])) for i in range(0, len(steps), size)]


def smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centred mean over about a tenth of the points, fewer at the ends; values that are not finite stay as they are."""
    reach = len(points) // 20
    result = []
    for i, (step, value) in enumerate(points):
        near = [other for _, other in points[max(0, i - reach):i + reach + 1] if math.isfinite(other)]
        result.append((step, fmean(near) if math.isfinite(value) else value))
    return result
