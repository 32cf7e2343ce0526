"""Both loops with bf16 weights, beside fp32 trainables and cast as a whole."""

import pytest
import torch


@pytest.fixture(params=['mixed', 'cast', 'cast, all terms'])
def model(request, build_loops):
    base = dict(dtype='bfloat16', lora=dict(r=2, alpha=4, dropout=0.1), checkpointing=True)
    model = build_loops(base, **dict(distill_weight=0.5, reward_weight=0.5) if 'all' in request.param else {})
    if 'cast' in request.param:
        model.bfloat16()
        model.base.restore_fp32_buffers()
        model.teacher.set_values({name: parameter.detach() for name, parameter in model.base.trainables().items()})
    return model.train()


@pytest.fixture(scope='module')
def batches(make_batch):
    return dict(
        loop1=make_batch(dict(key=1, pair=True), dict(key=2), dict(key=3, caption='a red dog')),
        loop2=make_batch(dict(key=4, caption='A big cat. It sits.', describes=True), dict(key=5, caption='A dog.')),
    )


@pytest.mark.parametrize('mode', ['loop1', 'loop2'])
def test_gradients_are_finite_and_reach_what_they_should(model, batches, mode):
    output = model(batches[mode], dict(step=0), mode=mode)
    assert output['loss'].dtype == torch.float32 and torch.isfinite(output['loss'])
    trainables = model.trainables()
    grads = torch.autograd.grad(output['loss'], list(trainables.values()), allow_unused=True)
    for (name, parameter), grad in zip(trainables.items(), grads):
        assert grad is None or torch.isfinite(grad).all(), name
        if '.lora_' in name or '.mlp1.' in name:
            assert grad is not None and grad.dtype == parameter.dtype, name
    assert any(grad is not None and grad.any() for grad in grads)


def test_predicts(model, batches):
    masks = model.eval()(batches['loop2'], mode='predict')
    assert len(masks) == 2 and all(mask.shape == (128, 128) and mask.dtype == torch.bool for mask in masks)


def test_the_teacher_leaves_no_casts_of_its_weights_behind(build_loops, batches):
    """Autocast's copies of the teacher's weights must not serve the student."""
    model = build_loops(base=dict(dtype='bfloat16')).train()
    other = {name: torch.zeros_like(parameter) for name, parameter in model.base.trainables().items()}
    expected = model(batches['loop2'], dict(step=0), mode='loop2')['loss']
    model.teacher.set_values(other)
    images = model.base.encode(batches['loop2']['pixel_values'], batches['loop2']['g_pixel_values'])
    model.teacher.describe(images, [0], [batches['loop2']['prompt_masks'][0]], 3)
    torch.testing.assert_close(model(batches['loop2'], dict(step=0), mode='loop2')['loss'], expected, rtol=0, atol=0)
