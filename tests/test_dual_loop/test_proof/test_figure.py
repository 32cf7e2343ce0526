"""The points of the figure against the results that they are drawn from."""

import numpy as np
import pytest

from dual_loop.proof.figure import FOUND, SAID, figure, shown, write_figure


def result(arm, said, found, seed=0, **settings):
    return dict(arm=arm, seed=seed, percent='5', steps=600, rate=3e-4, held_out='val', before={SAID: 0.0, FOUND: 0.3},
                after={SAID: said, FOUND: found}) | settings


def test_a_point_for_each_arm_at_the_mean_of_its_seeds():
    axes, = figure([result('discrete', 0.5, 0.4), result('discrete', 0.7, 0.5, seed=1),
                    result('soft', 0.2, 0.3)]).axes
    points = [bars[0].get_xydata()[0] for bars in axes.containers]
    np.testing.assert_allclose(points, [(0.6, 0.45), (0.2, 0.3)])
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 2 and texts[0] == 'before' and "teacher's words" in texts[1]


def test_the_test_scenes_come_first_each_arm_in_its_longest_runs():
    validated = [result('both', 0.5, 0.4), result('both', 0.5, 0.4, steps=1000), result('both', 0.5, 0.4, percent='1')]
    assert shown(validated) == validated[:1]
    tested = [result(arm, 0.5, 0.4, steps=steps, held_out='test') for arm, steps in
              (('both', 1000), ('supervised', 600), ('supervised', 3500))]
    assert shown(validated + tested) == [tested[0], tested[2]]


def test_a_file_with_the_same_bytes(tmp_path):
    for name in 'ab':
        write_figure([result('both', 0.5, 0.4)], tmp_path / name)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    assert (tmp_path / 'a').read_bytes().startswith(b'\x89PNG')
    with pytest.raises(ValueError, match='no result to draw: run a stage first'):
        figure([])
