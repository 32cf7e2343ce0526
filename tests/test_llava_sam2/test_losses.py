"""Losses in closed form and the points they are taken on."""

import math

import pytest
import torch

from llava_sam2.losses import dice, mask_targets, point_bce, point_values, sample_points, token_cross_entropy
from llava_sam2.randomness import seed_for


def test_point_bce():
    logits = torch.tensor([[0.0, 2.0], [-1.0, -1.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.25]])
    negative = math.log(1 + math.exp(-1))
    torch.testing.assert_close(point_bce(logits, targets), torch.tensor([
        (math.log(2) + math.log(1 + math.exp(2))) / 2,
        (negative + 0.75 * negative + 0.25 * math.log(1 + math.exp(1))) / 2,
    ]))


def test_dice_has_first_powers():
    logits = torch.tensor([[math.log(3), 0.0], [-40.0, -40.0]])  # probabilities 0.75, 0.5 and 0, 0
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([1 - (2 * 0.75 + 1) / (1.25 + 1 + 1), 0.0])
    torch.testing.assert_close(dice(logits, targets), expected)
    torch.testing.assert_close(dice(logits, targets, eps=0.5)[0], torch.tensor(1 - 2.0 / 2.75))


def test_token_cross_entropy_is_a_mean_over_each_rows_own_tokens():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(3), 0.0]], requires_grad=True)
    loss = token_cross_entropy(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 2, 2]), 3)
    expected = torch.tensor([math.log(2), 0.0, (math.log(2) + math.log(4)) / 2])
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.grad(loss[1], logits)[0].eq(0).all()  # the row without tokens keeps its graph


def test_targets_are_area_averages():
    mask = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    targets = mask_targets(mask, (4, 4))
    for index in range(2):
        for row in range(4):
            for column in range(4):
                block = mask[index, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
                assert targets[index, row, column] == pytest.approx(block.sum().item() / 9)


def test_point_values_are_bilinear_between_pixel_centres():
    ramp = torch.arange(4.0).expand(1, 4, 4)  # value x at the centre of column x
    points = torch.tensor([[[0.375, 0.5], [0.5, 0.3]]])
    torch.testing.assert_close(point_values(ramp, points), torch.tensor([[1.0, 1.5]]))


def draw(*keys, logits=None, num_points=4000, importance_ratio=0.0):
    logits = torch.randn(1, 8, 8).expand(len(keys), -1, -1) if logits is None else logits
    return sample_points(logits, torch.tensor([seed_for(key) for key in keys]), num_points, 3.0, importance_ratio)


def test_points_are_uniform():
    points = draw(0)[0]
    counts = torch.histogramdd(points, bins=[4, 4], range=[0, 1, 0, 1]).hist
    assert counts.sum() == 4000  # none outside
    chi_squared = ((counts - 250) ** 2 / 250).sum()
    assert chi_squared < 37.7  # 0.999 quantile for 15 degrees of freedom


def test_important_points_are_the_most_uncertain_of_the_candidates():
    # Certain everywhere but on the left edge, where the logit is small.
    logits = torch.full((1, 8, 8), 9.0)
    logits[..., 0] = 0.1
    points = draw(0, logits=logits, num_points=200, importance_ratio=0.25)[0]
    assert points.shape == (200, 2)
    assert (points[:50, 0] < 1.5 / 8).all()
    assert (points[50:, 0] < 1.5 / 8).float().mean() < 0.4  # the rest is uniform


def test_points_of_a_row_depend_on_its_own_key_alone():
    logits = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    together = draw('a', 'b', 'c', logits=logits, num_points=50, importance_ratio=0.75)
    for index, key in enumerate('abc'):
        alone = draw(key, logits=logits[index : index + 1], num_points=50, importance_ratio=0.75)
        assert torch.equal(together[index], alone[0])
    assert not torch.equal(together[0], together[1])
