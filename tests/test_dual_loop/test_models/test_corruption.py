"""Corruption of captions."""

import pytest
import torch

from dual_loop.models.corruption import corrupt
from llava_sam2.randomness import seed_for


def keys(*names):
    return torch.tensor([seed_for(name) for name in names])


@pytest.mark.parametrize('length, ratio, count', [(1, 0.25, 1), (2, 0.25, 1), (8, 0.25, 2), (10, 0.25, 2), (4, 1.0, 4)])
def test_share_of_replaced_tokens(length, ratio, count):
    ids = [-1] * length  # no ordinary token, so that every replacement shows
    [corrupted], [positions] = corrupt([ids], ratio, torch.arange(5), keys(0))
    assert len(positions) == count and positions == sorted(set(positions))
    assert [place for place, token in enumerate(corrupted) if token != -1] == positions
    assert ids == [-1] * length  # the teacher's caption itself is not changed


def test_nothing_to_do():
    assert corrupt([[], [7]], 0.25, torch.arange(5), keys(0, 1))[0][0] == []
    assert corrupt([[]], 0.25, torch.arange(5), keys(0)) == ([[]], [[]])
    assert corrupt([[7, 8], [9]], 0, torch.arange(5), keys(0, 1)) == ([[7, 8], [9]], [[], []])


def test_only_ordinary_tokens_come_in_and_all_of_them_do(vocabulary):
    [corrupted], _ = corrupt([[-1] * 20000], 1.0, vocabulary.ordinary_ids, keys(0))
    assert set(corrupted) == set(vocabulary.ordinary_ids.tolist())


def test_ordinary_tokens_are_equally_likely():
    [corrupted], _ = corrupt([[-1] * 20000], 1.0, torch.arange(10), keys(0))
    counts = torch.bincount(torch.tensor(corrupted), minlength=10)
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # 0.999 quantile for 9 degrees of freedom


def test_every_position_is_hit_alike():
    counts = torch.zeros(8)
    for positions in corrupt([[0] * 8] * 2000, 0.25, torch.arange(5), keys(*range(2000)))[1]:
        counts[positions] += 1
    assert counts.sum() == 4000 and ((counts - 500).abs() < 90).all()  # standard deviation 19


def test_what_happens_to_a_caption_depends_on_its_own_key_alone():
    captions, ordinary = [[0] * 16, [0] * 3, [0] * 16, [0] * 40], torch.arange(1, 500)
    together = list(zip(*corrupt(captions, 0.5, ordinary, keys('a', 'b', 'c', 'd'))))
    reversed_ = list(zip(*corrupt(captions[::-1], 0.5, ordinary, keys('d', 'c', 'b', 'a'))))
    alone = [(ids[0], places[0]) for ids, places in
             (corrupt([caption], 0.5, ordinary, keys(name)) for caption, name in zip(captions, 'abcd'))]
    assert together == reversed_[::-1] == alone
    assert together[0] != together[2]
