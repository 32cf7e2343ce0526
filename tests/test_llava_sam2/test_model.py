"""The trainable base model: what is trained, what is computed once, and its losses."""

import logging
import re

import pytest
import torch
from tiny_release import save_weights

from llava_sam2.portable import prompts
from llava_sam2.portable.rows import segmentation_row

EVER_TRAINED = ('network.mlp1.', 'network.text_hidden_fcs.', 'network.grounding_encoder.mask_decoder.')


@pytest.fixture(scope='module')
def batch(make_batch):
    """One phrase, one description."""
    return make_batch(dict(key=1, caption='a red dog'), dict(key=2, caption='A big cat. It sits.', describes=True))


def gradients(model, losses, weights=None):
    parameters = model.trainables()
    total = sum((weights or {}).get(name, 1.0) * loss for name, loss in losses.items())
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, found))


# -- construction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('options', [dict(random_weights=False), dict(pretrained='assets/tiny')])
def test_weights_are_named_or_declared_random_but_not_both(build_base, options):
    with pytest.raises(ValueError, match='model.pretrained .* or model.random_weights=True, not both'):
        build_base(**options)


def test_missing_folder_is_named(build_base, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'no config.json in {tmp_path}'):
        build_base(random_weights=False, network=None, pretrained=str(tmp_path))


def test_random_weights_need_sizes(build_base):
    with pytest.raises(ValueError, match='sizes in model.network'):
        build_base(network=None)


def test_unknown_trainable_part_is_named(build_base):
    with pytest.raises(ValueError, match=r"model.trainable names \['decoder'\], known parts are .*'mask_decoder'"):
        build_base(trainable=('mlp1', 'decoder'))


def test_pretrained_weights_are_in_place_under_lora(build_base, tmp_path):
    source = build_base(lora=None)
    save_weights(source.network, tmp_path)
    model = build_base(random_weights=False, network=None, pretrained=str(tmp_path))
    state = {name.replace('.base_layer.', '.'): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in source.state_dict().items():
        assert torch.equal(state[name], tensor), name


# -- what is trained ------------------------------------------------------------------------------------------------


def test_init_weights_keeps_loras_zeros(build_base):
    model = build_base(stir=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.init_weights()
    lora = [name for name in before if '.lora_B.' in name]
    assert len(lora) == 2 * 7 and all(before[name].eq(0).all() for name in lora)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_standard_recipe_trains_the_standard_parts(build_base):
    names = set(build_base().trainables())
    assert all(name.startswith(EVER_TRAINED) or '.lora_' in name for name in names)
    model = build_base()
    frozen_decoder = [
        name for name, _ in model.named_parameters() if '.mask_decoder.' in name and name not in names
    ]
    assert len(frozen_decoder) == 12 + 18
    assert all(re.search(r'iou_prediction_head|pred_obj_score_head|hypernetworks_mlps\.[023]\.', name)
               for name in frozen_decoder)


def test_every_trainable_gets_a_gradient_and_nothing_else_does(build_base, batch):
    model = build_base().train()
    sum(model.supervised_losses(batch, 0).values()).backward()
    assert [name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None] == []
    without = {name for name, p in model.trainables().items() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all(name.endswith('k_proj.bias') for name in without), without  # softmax sees no bias that all keys share


def test_mlp1_learns_from_each_loss(build_base, batch):
    model = build_base().train()
    for name in ('loss_mask', 'loss_dice', 'loss_answer', 'loss_caption'):
        losses = model.supervised_losses(batch, 0)
        grad = gradients(model, {name: losses[name]})['network.mlp1.1.weight']
        assert grad.abs().sum() > 0, name


def test_frozen_encoders_stay_in_evaluation_mode(build_base):
    model = build_base().train()
    assert model.network.language_model.training
    assert not model.network.vision_model.training
    assert model.network.grounding_encoder.training  # its mask decoder is trained
    assert build_base(trainable=('vision_model',)).train().network.vision_model.training


def test_random_frozen_token_rows_are_warned_of(build_base, tmp_path, monkeypatch):
    """Nothing can be learned with them, so the run is good for rehearsals only; it must say so, and only then."""
    said = []
    monkeypatch.setattr('llava_sam2.model.print_log', lambda message, **options: said.append((message, options)))
    build_base().check_token_rows()
    [(message, options)] = said
    assert message.startswith('NOTHING CAN BE LEARNED') and '[SEG] <p> </p> <vp> </vp>' in message
    assert 'model.base.pretrained' in message and options['level'] == logging.WARNING
    build_base(trainable=('mlp1', 'language_model'), lora=None).check_token_rows()
    save_weights(build_base(lora=None).network, tmp_path)
    said.clear()
    build_base(random_weights=False, network=None, pretrained=str(tmp_path)).check_token_rows()
    assert [message for message, _ in said if 'LEARNED' in message] == []


# -- passes ---------------------------------------------------------------------------------------------------------


def test_frozen_encoders_run_without_a_graph(build_base, batch):
    pixels = batch['pixel_values'], batch['g_pixel_values']
    images = build_base().encode(*pixels)
    assert not images.vision.requires_grad and not any(fmap.requires_grad for fmap in images.maps)
    images = build_base(trainable=('vision_model', 'image_encoder')).encode(*pixels)
    assert images.vision.requires_grad and all(fmap.requires_grad for fmap in images.maps)


@torch.no_grad()
def test_objects_of_one_image_share_its_features(build_base, make_batch, vocabulary, monkeypatch):
    """One decoder call with one copy of the maps per image, and the masks are those of single calls."""
    model = build_base().eval()
    batch = make_batch(dict(key=1), dict(key=2), dict(key=3))
    images = model.encode(batch['pixel_values'], batch['g_pixel_values'])
    phrases = [(2, 'dog'), (0, 'a red cat'), (2, 'mat'), (2, 'left one')]
    rows = [
        segmentation_row(vocabulary, 16, image, phrase, prompts.EVALUATION_QUESTION, 'It is [SEG].')
        for image, phrase in phrases
    ]
    calls = []
    decode = model.network.decode_masks
    monkeypatch.setattr(
        model.network, 'decode_masks', lambda maps, embeds: calls.append((maps, embeds)) or decode(maps, embeds)
    )
    masks = model.segment(rows, model.read_rows(rows, images)[1], images)
    assert len(calls) == 1 and [len(fmap) for fmap in calls[0][0]] == [2, 2, 2] and calls[0][1].shape == (2, 3, 32)
    for row, mask in zip(rows, masks):
        alone = model.segment([row], model.read_rows([row], images)[1], images)[0]
        torch.testing.assert_close(mask, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(masks[0], masks[2])


def test_checkpointing_changes_no_gradient(build_base, batch):
    plain, saving = build_base().train(), build_base(checkpointing=True).train()
    assert saving.network.language_model.is_gradient_checkpointing
    expected = gradients(plain, plain.supervised_losses(batch, 0))
    actual = gradients(saving, saving.supervised_losses(batch, 0))
    assert any('.lora_A.' in name for name in expected)
    for name, gradient in expected.items():
        if gradient is None:
            assert actual[name] is None, name
        else:
            torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-5)


# -- losses ---------------------------------------------------------------------------------------------------------


def test_losses_are_weighted_means_over_the_rows(build_base, make_batch):
    """A batch costs the mean of its samples, whatever their order and length."""
    model = build_base().eval()
    samples = [
        dict(key=1, caption='a red dog'),
        dict(key=2, caption='A big cat. It sits on a very long green mat.', describes=True),
        dict(key=3, caption='it', describes=True),
    ]
    together = model.supervised_losses(make_batch(*samples), 5)
    turned = model.supervised_losses(make_batch(*samples[::-1]), 5)
    single = [model.supervised_losses(make_batch(sample), 5) for sample in samples]
    assert together.keys() == {'loss_mask', 'loss_dice', 'loss_answer', 'loss_caption'}
    for name, loss in together.items():
        torch.testing.assert_close(loss, sum(one[name] for one in single) / 3, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(loss, turned[name], rtol=1e-5, atol=1e-5)
    assert single[0]['loss_caption'] == 0 and single[1]['loss_caption'] > 0


def test_row_weights_scale_the_losses(build_base, batch):
    model = build_base().eval()
    first = model.supervised_losses(dict(batch, row_weights=torch.tensor([1.0, 0.0])), 0)
    second = model.supervised_losses(dict(batch, row_weights=torch.tensor([0.0, 1.0])), 0)
    mixed = model.supervised_losses(dict(batch, row_weights=torch.tensor([0.3, 0.7])), 0)
    for name in mixed:
        torch.testing.assert_close(mixed[name], 0.3 * first[name] + 0.7 * second[name])


def test_configured_weights_of_mask_and_dice(build_base, batch):
    plain = build_base(loss_mask=dict(weight=1.0, num_points=64), loss_dice=dict(weight=1.0)).eval()
    default = build_base().eval()
    first, second = plain.supervised_losses(batch, 0), default.supervised_losses(batch, 0)
    torch.testing.assert_close(second['loss_mask'], 2.0 * first['loss_mask'])
    torch.testing.assert_close(second['loss_dice'], 0.5 * first['loss_dice'])


def test_weights_points_and_eps_are_those_of_the_published_recipe(build_base):
    model = build_base(loss_mask=None)
    assert model.mask_loss.points == dict(num_points=12544, oversample_ratio=3.0, importance_ratio=0.75)
    assert (model.mask_loss.weight, model.mask_loss.dice) == (2.0, dict(weight=0.5, eps=1.0))


def test_draws_depend_on_step_and_sample(build_base, batch):
    model = build_base().eval()
    drawn = {model.text_rows.templates(step, name) for step in range(100) for name in ('a', 'b')}
    assert len(drawn) > 30
    assert {question for question, _ in drawn} == set(prompts.SEGMENTATION_QUESTIONS)
    assert model.text_rows.templates(3, 'a') == model.text_rows.templates(3, 'a')
    assert len({model.text_rows.templates(step, 'a') for step in range(5)}) > 1
    assert len({model.text_rows.templates(0, name) for name in 'abcde'}) > 1
    warm = build_base(single_template_steps=4)
    assert {warm.text_rows.templates(step, 'a') for step in range(4)} == {
        ('Please segment {class_name} in this image.', 'It is [SEG].')
    }
    assert warm.text_rows.templates(4, 'a') == model.text_rows.templates(4, 'a')
    losses = [model.supervised_losses(batch, step)['loss_mask'] for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_predicted_masks_are_those_of_each_row_alone_with_the_answer_given(build_base, make_batch):
    """Image 2 of a pair is searched, for the phrase in lower case and without its full stop."""
    model = build_base().eval()
    with torch.no_grad():  # random weights give one sign to every pixel
        model.network.text_hidden_fcs[-1].weight.mul_(5.0)
    rows = [dict(key=1, caption='The red dog.', pair=True), dict(key=2, caption='a striped blue cat on the left')]
    batch = make_batch(*rows)
    masks = model.val_step(batch)
    assert [mask.shape for mask in masks] == [batch['masks2'].shape[-2:]] * 2
    for row, (mask, phrase) in enumerate(zip(masks, ('the red dog', 'a striped blue cat on the left'))):
        images = model.encode(*(batch[key][batch['image2'][row]][None] for key in ('pixel_values', 'g_pixel_values')))
        given = segmentation_row(model.vocabulary, 16, 0, phrase, prompts.EVALUATION_QUESTION, 'It is [SEG].')
        _, hidden_states = model.read_rows([given], images)
        logits = model.segment([given], hidden_states, images)
        alone = torch.nn.functional.interpolate(logits[None], size=mask.shape, mode='bilinear')[0, 0] > 0
        assert mask.dtype == torch.bool and 0.001 < alone.float().mean() < 0.999
        assert (mask != alone).float().mean() < 1e-3 and not mask.requires_grad


def test_a_row_without_caption_cannot_be_found(build_base, make_batch):
    with pytest.raises(ValueError, match='sample7 has no caption.*val_dataloader'):
        build_base()(make_batch(dict(key=6, caption='a dog'), dict(key=7)), mode='predict')


def test_forward_knows_two_modes(build_base, batch):
    model = build_base().eval()
    assert model(batch)['loss_mask'] == model.supervised_losses(batch, 0)['loss_mask']
    with pytest.raises(ValueError, match="not 'tensor'"):
        model(batch, mode='tensor')


def test_modes_of_all_modules_are_what_torch_would_set(build_base):
    for trainable in (('mlp1', ), ('mlp1', 'vision_model')):
        model = build_base(trainable=trainable, lora=dict(r=2, alpha=4, dropout=0.1))
        network = model.network
        for mode in (True, False, True):
            network.vision_model.encoder.train(not mode)  # someone changed a part of it
            assert model.train(mode) is model
            expected = {module: mode for module in model.modules()}
            for encoder in (network.vision_model, network.grounding_encoder):
                trained = any(p.requires_grad for p in encoder.parameters())
                expected |= {module: mode and trained for module in encoder.modules()}
            assert {module: module.training for module in model.modules()} == expected
