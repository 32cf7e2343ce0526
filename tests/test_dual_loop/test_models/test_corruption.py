"""Corruption of captions."""

import pytest
import torch

from dual_loop.models.corruption import corrupt
from llava_sam2.randomness import generator_for


@pytest.mark.parametrize('length, ratio, count', [(1, 0.25, 1), (2, 0.25, 1), (8, 0.25, 2), (10, 0.25, 2), (4, 1.0, 4)])
def test_share_of_replaced_tokens(length, ratio, count):
    ids = [-1] * length  # no ordinary token, so that every replacement shows
    corrupted, positions = corrupt(ids, ratio, torch.arange(5), generator_for(0))
    assert len(positions) == count and positions == sorted(set(positions))
    assert [place for place, token in enumerate(corrupted) if token != -1] == positions
    assert ids == [-1] * length  # the teacher's caption itself is not changed


def test_nothing_to_do():
    assert corrupt([], 0.25, torch.arange(5), generator_for(0)) == ([], [])
    assert corrupt([7, 8], 0, torch.arange(5), generator_for(0)) == ([7, 8], [])


def test_only_ordinary_tokens_come_in_and_all_of_them_do(vocabulary):
    corrupted, _ = corrupt([-1] * 20000, 1.0, vocabulary.ordinary_ids, generator_for(0))
    assert set(corrupted) == set(vocabulary.ordinary_ids.tolist())


def test_every_position_is_hit_alike():
    counts = torch.zeros(8)
    for key in range(2000):
        counts[corrupt([0] * 8, 0.25, torch.arange(5), generator_for(key))[1]] += 1
    assert counts.sum() == 4000 and ((counts - 500).abs() < 90).all()  # standard deviation 19


def test_draw_depends_on_its_generator():
    drawn = [corrupt([0] * 16, 0.5, torch.arange(1, 500), generator_for(key))[0] for key in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
