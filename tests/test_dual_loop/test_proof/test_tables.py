"""Means and intervals against numbers worked out by hand."""

import math

import pytest

from dual_loop.proof.tables import FIGURES, difference_table, differences, interval, table


def result(arm, seed, value, **settings):
    return dict(arm=arm, seed=seed, percent='5', steps=600, rate=3e-4, seconds=0.25,
                after={figure: value for figure in FIGURES.values()}) | settings


def test_interval_of_five_seeds():
    """Student's t of four degrees of freedom is 2.776; the standard deviation of 1..5 is sqrt(2.5)."""
    mean, width = interval([1, 2, 3, 4, 5])
    assert mean == 3 and width == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)
    assert interval([2.0])[0] == 2 and math.isnan(interval([2.0])[1])


def test_differences_are_those_of_one_seed():
    both = [result('both', 0, 0.5), result('both', 1, 0.75), result('both', 2, 0.0)]
    supervised = [result('supervised', 1, 0.25), result('supervised', 0, 0.25)]
    assert differences(both, supervised, 'held_out/ciou_new') == [0.25, 0.5]
    with pytest.raises(ValueError, match='both has several runs of seed 0'):
        differences([*both, result('both', 0, 0.5, steps=300)], supervised, 'held_out/ciou_new')


def test_the_longest_runs_against_each_other_arm_and_length():
    """Differences 1, 2, 3: Student's t of two degrees of freedom is 4.303, so half the interval is 4.303 / sqrt(3)."""
    results = [result('both', seed, 4.0, steps=900) for seed in range(3)] + [result('both', 0, 0.0)]
    results += [result('supervised', seed, 3.0 - seed) for seed in range(3)]
    results += [result('supervised', seed, 4.0, steps=900) for seed in range(2)]
    head, _, *lines = difference_table(results, 'both').splitlines()
    assert head.startswith('| both, 900 steps, less | seeds | cIoU, new names | ')
    assert lines[0].startswith('| supervised, 600 steps | 3 | +2.000 [-0.484, +4.484] | ')
    assert lines[1].startswith('| supervised, 900 steps | 2 | +0.000 [+0.000, +0.000] | ') and len(lines) == 2


def test_a_line_for_each_arm_share_and_length():
    lines = table([result('both', 0, 0.5), result('both', 1, 0.7), result('both', 0, 0.5, percent='20'),
                   result('supervised', 0, 0.25, after={})]).splitlines()[2:]
    assert [line.split(' | ')[:2] for line in lines] == [['| both', '5 %'], ['| supervised', '5 %'], ['| both', '20 %']]
    assert '0.600 ± 1.271' in lines[0] and lines[1].count('| -') == len(FIGURES) and '± ' not in lines[2]
