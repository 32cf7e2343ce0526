"""What both loops do on tiny synthetic batches, and the model round them."""

import re

import pytest
import torch
from loop_probes import SAMPLES, gradients, ragged, spy

from dual_loop.engine.flat import FlatLayout, groups_of_loops
from dual_loop.engine.surgery import GradientSurgery

LOOP1_PARTS = ('mask', 'dice', 'answer', 'denoise')


# -- one encode per image -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
def test_every_distinct_image_is_encoded_once(build_loops, make_batch, monkeypatch, loop):
    model = build_loops()
    caption = 'a dog' if loop == 'loop2' else None
    batch = make_batch(dict(key=1, caption=caption, pair=loop == 'loop1'), dict(key=2, caption='a cat'),
                       dict(key=2, caption=caption))
    distinct = 3 if loop == 'loop1' else 2
    vision = spy(monkeypatch, model.base.network, 'encode_vision', lambda args, _: len(args[0]))
    grounding = spy(monkeypatch, model.base.network, 'encode_grounding', lambda args, _: len(args[0]))
    model(batch, dict(step=0), mode=loop)
    assert vision == [distinct] and grounding == [2]  # SAM 2 sees only what is segmented


# -- means over rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
def test_batch_loss_and_gradient_are_the_means_over_its_samples(build_loops, make_batch, monkeypatch, loop):
    """So padding, order and company change nothing, and every draw belongs to its sample."""
    model = build_loops(denoise_weight=0.5, mask_weight=1.0)
    ragged(monkeypatch, model)
    samples = SAMPLES[loop]

    def run(*chosen):
        out = model(make_batch(*chosen), dict(step=7), mode=loop)
        return out, gradients(model, out['loss'])

    together, gradient = run(*samples)
    turned, turned_gradient = run(*samples[::-1])
    single = [run(sample) for sample in samples]
    mean = sum(out['loss'].detach() for out, _ in single) / len(samples)
    torch.testing.assert_close(together['loss'].detach(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(turned['loss'].detach(), mean, rtol=1e-5, atol=1e-5)
    for name in gradient:
        expected = sum(one[name] for _, one in single) / len(samples)
        torch.testing.assert_close(gradient[name], expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(turned_gradient[name], expected, rtol=1e-3, atol=1e-5)
    if loop == 'loop1':
        assert together['caption_len'] not in (1.0, 6.0)  # ragged indeed


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
def test_unusable_row_counts_with_value_zero(build_loops, make_batch, loop):
    model = build_loops(denoise_weight=0.5)
    good, bad = SAMPLES[loop][0], dict(SAMPLES[loop][1], empty=True)
    alone = model(make_batch(good), dict(step=0), mode=loop)['loss']
    mixed = model(make_batch(good, bad), dict(step=0), mode=loop)['loss']
    torch.testing.assert_close(mixed, alone / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
def test_batch_without_usable_rows_gives_zero_with_a_graph(build_loops, make_batch, loop):
    model = build_loops(denoise_weight=0.5, mask_weight=1.0)
    batch = make_batch(*(dict(sample, empty=True) for sample in SAMPLES[loop]))
    loss = model(batch, dict(step=0), mode=loop)['loss']
    assert loss == 0
    parameters = {name: p for name, p in model.trainables().items() if '.lora_' in name or '.mlp1.' in name}
    for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values()))):
        assert gradient.eq(0).all(), name


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
def test_draws_depend_on_the_step(build_loops, make_batch, loop):
    model, batch = build_loops(), make_batch(*SAMPLES[loop])
    losses = [float(model(batch, dict(step=step), mode=loop)['loss'].detach()) for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def layout_of(model):
    return FlatLayout.from_params(model.trainables().items(), groups_of_loops(model.loops.values()),
                                  [[name] for name in model.loops])


# -- what surgery is given ------------------------------------------------------------------------------------------

# Softmax does not see a bias that all keys share.
WITHOUT_GRADIENT = re.compile(r'mask_decoder\..*k_proj\.bias')


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
def test_every_trainable_of_a_loop_has_a_finite_gradient_with_checkpointing_too(build_loops, make_batch, loop):
    batch, found = make_batch(*SAMPLES[loop]), []
    for checkpointing in (False, True):
        model = build_loops(base=dict(checkpointing=checkpointing), denoise_weight=0.5).train()
        layout = layout_of(model)
        layer, calls = model.base.network.language_model.model.layers[0], []
        layer.self_attn.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        loss = model(batch, dict(step=0), mode=loop)['loss']
        forward = calls.count(True)
        grads = torch.autograd.grad(loss, list(model.trainables().values()), allow_unused=True)
        assert (calls.count(True) > forward) == checkpointing  # recomputed indeed
        for name, group, grad in zip(layout.names, layout.groups, grads):
            assert (grad is not None) == (loop in layout.loops[group]), name
            if grad is not None:
                assert grad.isfinite().all(), name
                assert (grad.abs().max() > 1e-8) != bool(WITHOUT_GRADIENT.search(name)), name
        found.append([grad for grad in grads if grad is not None])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('loop', ['loop1', 'loop2'])
@pytest.mark.parametrize('trainable, message', [
    (('mlp1', 'text_hidden_fcs', 'mask_decoder'), 'use_reentrant=True, torch.utils.checkpoint is incompatible'),
    # The input of the language model needs no gradient then: torch gives None for LoRA without a word, and loop 2,
    # which trains nothing else, loses its graph.
    (('text_hidden_fcs', 'mask_decoder'), 'no gradient to .*lora_.*checkpointing is reentrant|does not require grad'),
])
def test_reentrant_checkpointing_never_goes_unnoticed(build_loops, make_batch, loop, trainable, message):
    model = build_loops(base=dict(trainable=trainable)).train()
    model.base.network.language_model.gradient_checkpointing_enable(dict(use_reentrant=True))
    layout = layout_of(model)
    loss = model(make_batch(*SAMPLES[loop]), dict(step=0), mode=loop)['loss']
    with pytest.raises(RuntimeError, match=message):
        grads = torch.autograd.grad(loss, list(model.trainables().values()), allow_unused=True)
        layout.accumulate_(layout.new_buffer(), grads, 1.0, loop)


def test_sum_of_the_loops_gradients_is_one_backward_of_the_summed_loss(build_loops, make_batch):
    model = build_loops(denoise_weight=0.5).train()
    parameters, layout = list(model.trainables().values()), layout_of(model)
    batches = {loop: make_batch(*SAMPLES[loop]) for loop in ('loop1', 'loop2')}

    def loss(loop):
        return model(batches[loop], dict(step=0), mode=loop)['loss']

    buffers = {loop: layout.new_buffer() for loop in ('loop1', 'loop2')}
    for loop, buffer in buffers.items():
        layout.accumulate_(buffer, torch.autograd.grad(loss(loop), parameters, allow_unused=True), 1.0, loop)
    combined, _ = GradientSurgery('sum', max_grad_norm=None).combine(list(buffers.values()), layout)
    assert torch.equal(combined, buffers['loop1'] + buffers['loop2'])
    (loss('loop1') + loss('loop2')).backward()
    together = torch.cat([parameter.grad.flatten() for parameter in parameters])
    assert (combined - together).norm() <= 1e-6 * together.norm()
    assert all(buffer.norm() > 0.1 * together.norm() for buffer in buffers.values())


# -- the model's face -----------------------------------------------------------------------------------------------


def test_surrogate_has_the_given_gradient(build_loops):
    model = build_loops()
    given = [torch.randn(p.shape) for p in model.trainables().values()]
    model(None, (model.trainables().values(), given), mode='surrogate').backward()
    for parameter, gradient in zip(model.trainables().values(), given):
        assert torch.equal(parameter.grad, gradient)
    with pytest.raises(ValueError, match='shorter'):
        model(None, (model.trainables().values(), given[:-1]), mode='surrogate')


def test_plain_training_is_the_bases(build_loops, make_batch):
    model, batch = build_loops().eval(), make_batch(*SAMPLES['loop2'])
    assert model(batch)['loss_mask'] == model.base.supervised_losses(batch, 0)['loss_mask']


def test_predictions_are_the_students(build_loops, make_batch):
    model, batch = build_loops().eval(), make_batch(*SAMPLES['loop2'])
    expected = model.base.forced_masks(batch)
    model.teacher.set_values({name: value + 1 for name, value in model.base.trainables().items()})
    assert torch.equal(torch.stack(model.val_step(batch)), expected)


def test_checkpoints_hold_what_was_trained_unless_the_rest_is_random(build_loops):
    model = build_loops()
    assert model.state_dict().keys() > model.trainables().keys()  # random frozen weights exist nowhere else
    model.base.random_weights = False
    assert model.state_dict().keys() == model.trainables().keys()
    wrapper = torch.nn.ModuleDict(dict(module=model, head=torch.nn.Linear(1, 1)))
    assert set(wrapper.state_dict()) == {f'module.{name}' for name in model.trainables()} | {'head.weight', 'head.bias'}


def test_unknown_names_are_refused(build_loops):
    with pytest.raises(ValueError, match="^bridge='soft' of loop 1 is unknown"):
        build_loops(bridge='soft')
    with pytest.raises(ValueError, match="unknown mode 'loop3'"):
        build_loops()(None, mode='loop3')
