"""Sentences about figures."""

import pytest

from dual_loop.visualization.quantities import LESS, MORE, explain, meaning


@pytest.mark.parametrize(('name', 'part', 'better'), [
    ('loop1/mask', 'Cross-entropy of the found mask', LESS), ('held_out/ciou_relation', 'kind relation', MORE),
    ('cycle/generated_paired_iou', "in the other frame by the model's own", MORE),
    ('cycle/shuffled_iou', 'another', None), ('cycle_teacher/cider', 'With the averages', MORE),
    ('grad_norm2/lora', 'gradient 2, in the parameters of lora', None),
    ('agreement1', 'gradient 1 with that of the step before', None),
    ('cosine13', 'gradients 1 and 3:', None), ('cosine/decoder', '1 and 2, in the parameters of decoder', None),
    ('w2/1+2', 'surgery gave gradient 2', None), ('seconds/loop2', 'the passes of loop2', LESS),
    ('loop2/answer above its floor of 0.228', 'guessing among the wordings', LESS), ('mine/oddity', 'of mine', None),
    ('cycle/accuracy_all_four_new', 'all four attributes of the object right, of objects with new names', MORE),
    ('cycle/accuracy_old_names', 'Share of the old names', MORE),
    ('cycle/unknown_words', 'no sentence of the demo', LESS),
    ('grad_norm', 'combined gradient', None), ('loss_dice', 'dice', LESS),
])
def test_names_of_the_log(name, part, better):
    quantity = explain(name)
    assert part in quantity.meaning and quantity.better == better


def test_metrics_of_evaluations():
    assert 'have the shape of the object right' in meaning('accuracy_shape')
    assert 'at least 0.5' in meaning('precision@0.5') and 'CIDEr' in meaning('cider') and meaning('nothing') == ''
