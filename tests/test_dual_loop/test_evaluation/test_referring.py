import pytest
import torch

from dual_loop.evaluation.referring import MaskScores, evaluate_referring


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


def test_kinds_add_up_and_batches_do_not_matter(build_base, make_batch):
    base = build_base()
    captions = 'red circle', 'the left star', 'blue ring'
    samples = [dict(key=key, caption=caption) for key, caption in enumerate(captions)]
    together = make_batch(*samples)
    together['kinds'] = ['attribute', 'relation', 'attribute']
    apart = [make_batch(sample) for sample in samples]
    for batch, kind in zip(apart, together['kinds']):
        batch['kinds'] = [kind]
    base.train()
    figures = evaluate_referring(base, [together])
    assert set(figures) == {'giou', 'ciou', 'ciou_attribute', 'ciou_relation'}
    assert evaluate_referring(base, apart) == pytest.approx(figures, abs=1e-6)
    assert base.training, 'the mode of the model must come back'
