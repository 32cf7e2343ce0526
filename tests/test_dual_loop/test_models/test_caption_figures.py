"""Figures of captions, counted by hand."""

import pytest

from dual_loop.models.caption_figures import caption_figures, distinct


def test_distinct():
    captions = [[1, 2, 1, 3], [1, 2]]
    assert distinct(captions, 1) == pytest.approx(3 / 6)
    assert distinct(captions, 2) == pytest.approx(3 / 4)  # 12, 21, 13 and 12
    assert distinct(captions, 5) == 0.0 and distinct([], 1) == 0.0


def test_figures():
    figures = caption_figures([[1, 2, 1], [3]], [True, False])
    assert figures == dict(caption_len=2.0, distinct_1=0.75, distinct_2=1.0, hit_max_len=0.5)
    assert caption_figures([], []) == {}
