"""Means and intervals against numbers worked out by hand."""

import math

import pytest

from dual_loop.proof.tables import FIGURES, differences, interval, table


def result(arm, seed, value, **settings):
    return dict(arm=arm, seed=seed, percent='5', steps=600, rate=3e-4, seconds=0.25,
                after={figure: value for figure in FIGURES.values()}) | settings


def test_interval_of_five_seeds():
    """Student's t of four degrees of freedom is 2.776; the standard deviation of 1..5 is sqrt(2.5)."""
    mean, width = interval([1, 2, 3, 4, 5])
    assert mean == 3 and width == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)
    assert interval([2.0])[0] == 2 and math.isnan(interval([2.0])[1])


def test_differences_are_those_of_one_seed():
    results = [result('both', 0, 0.5), result('both', 1, 0.75), result('both', 2, 0.0), result('supervised', 1, 0.25),
               result('supervised', 0, 0.25), result('loop2', 0, 9.0)]
    assert differences(results, 'both', 'supervised', 'held_out/ciou_new') == [0.25, 0.5]
    with pytest.raises(ValueError, match='several runs of seed 0'):
        differences([*results, result('both', 0, 0.5, steps=300)], 'both', 'supervised', 'held_out/ciou_new')


def test_a_line_for_each_arm_share_and_length():
    lines = table([result('both', 0, 0.5), result('both', 1, 0.7), result('both', 0, 0.5, percent='20'),
                   result('supervised', 0, 0.25, after={})]).splitlines()[2:]
    assert [line.split(' | ')[:2] for line in lines] == [['| both', '5 %'], ['| supervised', '5 %'], ['| both', '20 %']]
    assert '0.600 ± 1.271' in lines[0] and lines[1].count('| -') == len(FIGURES) and '± ' not in lines[2]
