"""What the figures of the proof draw against the results that they are drawn from."""

import numpy as np
import pytest

from dual_loop.proof.figure import FOUND, SAID, curves, figure, shares, shown, write_figures


def result(arm, said, found, seed=0, **settings):
    return dict(arm=arm, seed=seed, percent='5', steps=600, rate=3e-4, held_out='val', before={SAID: 0.0, FOUND: 0.3},
                after={SAID: said, FOUND: found}, curves={}) | settings


def test_a_point_for_each_arm_at_the_mean_of_its_seeds():
    axes, = figure([result('discrete', 0.5, 0.4), result('discrete', 0.7, 0.5, seed=1), result('soft', 0.2, 0.3),
                    result('supervised', 0.1, 0.2), result('supervised', 0.3, 0.1, steps=300)]).axes
    points = [bars[0].get_xydata()[0] for bars in axes.containers]
    np.testing.assert_allclose(points, [(0.3, 0.1), (0.1, 0.2), (0.6, 0.45), (0.2, 0.3)])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ['before', 'captioned scenes alone, 300 steps', 'captioned scenes alone',
                     "+ both, the teacher's words as they are"]


def test_curves_of_the_longest_runs_over_their_time():
    def run(seed, steps, *values):
        return result('loop2', 0.5, 0.4, seed, steps=steps,
                      curves={'loop2/caption': dict(steps=[100, 200], values=values)})

    panels = curves([run(0, 100, 9.0, 9.0), run(0, 200, 1.0, 0.5), run(1, 200, 2.0, 1.5)]).axes
    assert [len(axes.lines) for axes in panels] == [0, 0, 0, 1]
    np.testing.assert_allclose(panels[3].lines[0].get_xydata(), [(0.5, 1.5), (1.0, 1.0)])


def test_the_test_scenes_come_first_each_arm_in_its_longest_runs():
    validated = [result('both', 0.5, 0.4), result('both', 0.5, 0.4, steps=1000), result('both', 0.5, 0.4, percent='1')]
    assert shown(validated) == validated[:1]
    tested = [result(arm, 0.5, 0.4, steps=steps, held_out='test') for arm, steps in
              (('both', 1000), ('supervised', 600), ('supervised', 1000), ('supervised', 3500))]
    assert shown(validated + tested) == [tested[0], tested[1], tested[3]]


def test_shares_in_the_longest_runs_and_the_best_length_of_captions_alone():
    def run(arm, percent, steps, said, found):
        return result(arm, said, found, percent=percent, steps=steps, held_out='test')

    said, found = shares([
        run('supervised', '20', 100, 0.4, 0.5), run('supervised', '20', 900, 0.6, 0.3), run('both', '5', 500, 0.5, 0.4),
        run('supervised', '5', 900, 0.2, 0.1), run('ceiling', '5', 900, 0.9, 0.8), result('both', 0, 0, percent='20'),
    ]).axes
    for axes, longest, best, single in ((said, [(5, 0.2), (20, 0.6)], [(5, 0.2), (20, 0.6)], (5, 0.5)),
                                        (found, [(5, 0.1), (20, 0.3)], [(5, 0.1), (20, 0.5)], (5, 0.4))):
        lines = {bars.get_label(): bars[0].get_xydata() for bars in axes.containers}
        np.testing.assert_allclose(lines['captioned scenes alone'], longest)
        np.testing.assert_allclose(lines['captioned scenes alone, best length'], best)
        np.testing.assert_allclose(lines['+ both, bridge and denoising'], [single])
        level, = [line.get_ydata() for line in axes.lines if line.get_label() == 'all captions, with masks']
        assert {*level} == {0.9 if axes is said else 0.8}
    with pytest.raises(ValueError, match='run the stage shares first'):
        shares([result('both', 0.5, 0.4)])


def test_files_with_the_same_bytes(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        write_figures([result('both', 0.5, 0.4, held_out='test')], tmp_path / name)
    for file in ('proof.png', 'proof_curves.png', 'proof_shares.png'):
        assert (tmp_path / 'a' / file).read_bytes() == (tmp_path / 'b' / file).read_bytes()
        assert (tmp_path / 'a' / file).read_bytes().startswith(b'\x89PNG')
    with pytest.raises(ValueError, match='no result to draw: run a stage first'):
        figure([])
