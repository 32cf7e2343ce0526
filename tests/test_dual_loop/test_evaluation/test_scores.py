import pytest
import torch

from dual_loop.evaluation.scores import MaskScores, mask_metrics


def mask(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    canvas = torch.zeros(1, 10, 10, dtype=torch.bool)
    for top, left, bottom, right in boxes:
        canvas[0, top:bottom, left:right] = True
    return canvas


def test_scores_of_known_intersections():
    scores = MaskScores()
    scores.add(mask((0, 0, 2, 4)), mask((0, 2, 2, 6)))  # 4 of 12
    scores.add(mask(), mask((0, 0, 1, 8)))  # nothing predicted: 0 of 8
    scores.add(mask((5, 5, 10, 10)), mask((5, 5, 10, 10)))  # 25 of 25
    assert scores.ciou == pytest.approx((4 + 0 + 25) / (12 + 8 + 25))
    assert scores.giou == pytest.approx((4 / 12 + 0 + 1) / 3)


def test_an_empty_prediction_of_an_empty_mask_counts_as_one():
    scores = MaskScores()
    scores.add(mask(), mask())
    assert scores.giou == 1.0 and scores.ciou == 0.0


def test_an_iou_at_the_threshold_is_found():
    """Each threshold, met exactly by whole numbers of pixels, and missed by one pixel."""
    for tenths in range(5, 10):
        assert MaskScores([7 * tenths], [70]).precision(tenths / 10) == 1
        assert MaskScores([7 * tenths - 1], [70]).precision(tenths / 10) == 0


def test_metrics_of_samples():
    samples = [dict(intersection=i, union=u, seg=seg) for i, u, seg in
               ((75, 100, True), (0, 50, False), (9, 10, True), (0, 0, False))]
    assert mask_metrics(iter(samples)) == {
        'ciou': 84 / 160, 'giou': (0.75 + 0 + 0.9 + 1) / 4, 'precision@0.5': 0.75, 'precision@0.6': 0.75,
        'precision@0.7': 0.75, 'precision@0.8': 0.5, 'precision@0.9': 0.5, 'no_seg_rate': 0.5}
