"""Curves: where points land, what is averaged, and gaps."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from dual_loop.visualization.curves import HEIGHT, MAX_POINTS, WIDTH, curve, reduce_points, smooth


def lines(svg: str, css: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)
    return [[tuple(map(float, point.split(','))) for point in line.get('points').split()]
            for line in root.iter('polyline') if line.get('class') == css]


def test_low_is_down_and_time_goes_right():
    (points, ), = [lines(curve('loss', ([0, 10, 40], [3.0, 1.0, 2.0])), 'raw')]
    xs, ys = zip(*points)
    assert xs[-1] == WIDTH and xs[1] - xs[0] == pytest.approx((xs[2] - xs[0]) / 4, abs=0.1)
    assert ys[0] < ys[2] < ys[1] and ys[2] == pytest.approx((ys[0] + ys[1]) / 2, abs=0.1)
    assert all(0 <= y <= HEIGHT for y in ys)


def test_axes_carry_the_extremes_and_the_name_is_escaped():
    svg = curve('<loss> & "co"', ([5, 6, 90], [0.25, -2.0, 1.0]))
    root = ElementTree.fromstring(svg)  # well-formed
    assert [text.text for text in root.iter('text')] == ['1', '-2', '5', '90']
    assert root.find('title').text == '<loss> & "co"'


def test_zero_line_only_where_zero_is_crossed():
    def has_zero(values):
        return 'class="zero"' in curve('x', ([0, 1], values))

    assert has_zero([-1.0, 1.0]) and not has_zero([1.0, 2.0]) and not has_zero([-2.0, -1.0])


def test_values_that_are_not_finite_leave_a_gap():
    pieces = lines(curve('x', (range(6), [1.0, 2.0, math.nan, 3.0, math.inf, 4.0])), 'raw')
    assert [len(set(piece)) for piece in pieces] == [2, 1, 1] and min(map(len, pieces)) == 2, 'a dot is a line too'
    assert 'no finite value' in curve('x', ([0], [math.nan])) and 'no finite value' in curve('x', ([], []))


def test_constant_and_single_values_stay_on_the_canvas():
    for values in ([2.0], [0.0, 0.0], [-3.0, -3.0]):
        svg = curve('x', (range(len(values)), values))
        assert not re.search('nan|inf', svg)
        assert all(y == pytest.approx((HEIGHT - 18 + 6) / 2) for _, y in lines(svg, 'raw')[0])


def test_long_series_become_means_of_neighbours():
    assert reduce_points([0, 1, 2], [1.0, 2.0, 6.0]) == [(0, 1), (1, 2), (2, 6)]
    n = 2 * MAX_POINTS
    points = reduce_points(range(n), [float(i % 2) for i in range(n)])
    assert len(points) == MAX_POINTS and points[1] == (2.5, 0.5)
    assert len(reduce_points(range(n + 1), [0.0] * (n + 1))) <= MAX_POINTS


def test_smoothing_is_a_centred_mean_that_skips_gaps():
    points = [(float(i), float(i * i)) for i in range(20)]  # reach 1
    assert smooth(points)[5] == (5, pytest.approx((16 + 25 + 36) / 3))
    assert smooth(points)[0] == (0, pytest.approx(0.5))
    points[6] = (6.0, math.nan)
    assert smooth(points)[5][1] == pytest.approx((16 + 25) / 2) and math.isnan(smooth(points)[6][1])


def test_unequal_lengths_are_an_error():
    with pytest.raises(ValueError, match="curve 'x': 2 steps but 1 values"):
        curve('x', ([0, 1], [1.0]))
