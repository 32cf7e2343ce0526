"""The supervised stream and how loops are put together."""

import pytest
import torch

from dual_loop.models import CaptionLoop, Loop, MaskLoop, SupervisedLoop
from dual_loop.models.dual_loop_model import build_loops as loops_of
from llava_sam2.batches import usable_weights

DESCRIBED = (dict(key=1, caption='a red dog'), dict(key=2, caption='A small cat.', describes=True),
             dict(key=2, caption='it'))


def test_its_loss_is_that_of_plain_supervised_training(build_loops, make_batch):
    model = build_loops().eval()
    batch = make_batch(*DESCRIBED)
    losses = model.base.supervised_losses(batch, 4)
    out = SupervisedLoop(weight=0.5, answer_weight=0.3, caption_weight=0.7).forward(model, batch, 4)
    expected = 0.5 * (losses['loss_mask'] + losses['loss_dice'] + 0.3 * losses['loss_answer']
                      + 0.7 * losses['loss_caption'])
    torch.testing.assert_close(out['loss'], expected)
    assert out['caption'] == pytest.approx(losses['loss_caption'].item()) and out['caption'] > 0
    assert usable_weights(batch).sum() == pytest.approx(1)


def test_phrases_are_captions_too_where_they_have_a_question(build_loops, make_batch):
    model, batch = build_loops().eval(), make_batch(*DESCRIBED)
    losses = model.base.supervised_losses(batch, 4, short_captions=True)
    out = SupervisedLoop(short_captions=True).forward(model, batch, 4)
    assert out['caption'] == losses['loss_caption'] != model.base.supervised_losses(batch, 4)['loss_caption']


def test_a_row_without_caption_is_refused(build_loops, make_batch):
    with pytest.raises(ValueError, match='no caption.*train_cfg.loop_dataloaders.supervised'):
        SupervisedLoop().forward(build_loops(), make_batch(dict(key=1)), 0)


def test_the_two_loops_take_the_models_settings():
    loops = loops_of(dict(bridge='discrete', max_caption_len=9, answer_weight=0.5, mask_weight=0.25, mask_ratio=0.1))
    assert list(loops) == ['loop1', 'loop2']
    assert loops['loop1'].bridge is None and loops['loop1'].mask_ratio == 0.1
    assert [loop.max_caption_len for loop in loops.values()] == [9, 9]
    assert [loop.short_captions for loop in loops_of(dict(short_captions=0.5)).values()] == [0.5, True]
    assert [loop.answer_weight for loop in loops.values()] == [0.5, 0.5] and loops['loop2'].mask_weight == 0.25
    published = loops_of({})
    assert vars(published['loop2']) == vars(CaptionLoop(max_caption_len=256, answer_weight=1.0, mask_weight=0.0))
    first = published['loop1']
    assert (first.bridge.topk, first.bridge.tau, first.mask_ratio, first.denoise_weight) == (512, 0.7, 0.25, 0.0)
    further = dict(slot='teacher', bridge_gradient=0.0, bridge_max_norm=0.5, min_cycle_iou=0.25)
    assert {name: vars(first)[name] for name in further} == dict(
        slot='student', bridge_gradient=1.0, bridge_max_norm=None, min_cycle_iou=0.0)
    assert vars(loops_of(further)['loop1']).items() >= further.items()


def test_dropout_of_the_two_loops_keeps_its_keys():
    assert [loop.key for loop in loops_of({}).values()] == [1, 2]
    assert [loop.key for loop in (SupervisedLoop(), MaskLoop(name='again'))] == ['supervised', 'again']


@pytest.mark.parametrize(('settings', 'named'), [
    (dict(loops=[MaskLoop()], topk=3), 'model.topk stands beside model.loops'),
    (dict(loops=[MaskLoop(), MaskLoop()]), "two loops.*name 'loop1'"),
    (dict(loops=[MaskLoop(name='predict')]), "mode of the model, with the name 'predict'"),
    (dict(loops=[SupervisedLoop(), MaskLoop()]), "'supervised' joins 'loop1', which is no loop before it"),
    (dict(loops=[MaskLoop(), SupervisedLoop(), SupervisedLoop(name='more', joins='supervised')]), "'more' joins"),
    (dict(loops=[]), 'nothing to train'),
])
def test_loops_that_do_not_go_together_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        loops_of(settings)


def test_a_loop_of_ones_own_has_only_to_give_a_loss(build_loops, make_batch):
    class Own(Loop):
        name = 'own'

    with pytest.raises(NotImplementedError):
        Own().forward(build_loops(), make_batch(dict(key=1)), 0)
    assert list(Own().passages(None, {}, 0, 0)) == [] and Own().title == 'own' and MaskLoop().title == 'loop 1'
