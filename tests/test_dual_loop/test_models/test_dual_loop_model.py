"""The two loops on tiny synthetic batches."""

import re
from types import SimpleNamespace

import pytest
import torch

from dual_loop.engine.flat import FlatLayout, groups_of_loops
from dual_loop.engine.surgery import GradientSurgery
from dual_loop.models.caption_loop import predicted_regions
from llava_sam2.portable import prompts
from llava_sam2.portable.generation import Decoded
from llava_sam2.portable.regions import region_grid
from llava_sam2.portable.sequences import IGNORE
from llava_sam2.portable.templates import PHI3_CHAT

LOOP1_PARTS = ('mask', 'dice', 'answer', 'denoise')


def gradients(model, loss):
    """Gradient of every trainable, zeros where there is none."""
    parameters = model.trainables()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found)}


def spy(monkeypatch, owner, name, note):
    """Let ``owner.name`` run as it is, and note what ``note(arguments, result)`` says of each call."""
    calls, original = [], getattr(owner, name)

    def run(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(note(args, result))
        return result

    monkeypatch.setattr(owner, name, run)
    return calls


def speak(monkeypatch, model, *captions):
    """Let the teacher say given texts (or token ids), whatever it sees."""
    ids = [model.base.vocabulary.encode(c) if isinstance(c, str) else c for c in captions]
    monkeypatch.setattr(model.teacher, 'describe', lambda *args: [Decoded(list(one), True) for one in ids])


def ragged(monkeypatch, model):
    """Captions of 1 to 6 tokens: the teacher's own, cut by the size of the region."""
    describe = model.teacher.describe

    def run(images, image_of_row, regions, *options):
        decoded = describe(images, image_of_row, regions, *options)
        return [Decoded(one.ids[: 1 + int(region.sum()) % 6], True) for one, region in zip(decoded, regions)]

    monkeypatch.setattr(model.teacher, 'describe', run)


def read_rows(monkeypatch, model):
    """The batches that the student reads, pass by pass."""
    return spy(monkeypatch, model.base, 'read', lambda args, result: result[0])


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
    assert vision == grounding == [distinct]


# -- loop 1 ---------------------------------------------------------------------------------------------------------


def test_loop1_reads_image1_and_segments_image2(build_loops, make_batch, monkeypatch):
    model = build_loops()
    batch = make_batch(dict(key=5, caption='a cat'), dict(key=1, pair=True))
    passes = read_rows(monkeypatch, model)
    model.loops['loop1'].forward(model, batch, 0)
    first, second = passes
    assert [row.image for row in first.rows] == [1]
    assert torch.equal(first.rows[0].region, batch['prompt_masks'][1].flatten())
    assert [row.image for row in second.rows] == [0, 2]
    assert second.rows[0].soft is None and len(second.rows[1].soft) == 6


def test_mask_gradient_reaches_the_caption_path_through_the_caption_alone(build_loops, make_batch, monkeypatch):
    """Without the answer's and the denoising loss, and with it cut at the caption for comparison."""
    model = build_loops(answer_weight=0.0, denoise_weight=0.0)
    batch = make_batch(dict(key=1), dict(key=2, pair=True))
    through = gradients(model, model.loops['loop1'].forward(model, batch, 0)['loss'])
    bridge = model.loops['loop1'].bridge

    def cut(*args):
        out = bridge(*args)
        out.embeds = [embeds.detach() for embeds in out.embeds]
        return out

    monkeypatch.setattr(model.loops['loop1'], 'bridge', cut)
    detached = gradients(model, model.loops['loop1'].forward(model, batch, 0)['loss'])
    differs = {name for name in through if not torch.allclose(through[name], detached[name], rtol=1e-3, atol=1e-7)}
    assert 'base.network.mlp1.1.weight' in differs
    assert {name for name in through if '.lora_' in name} <= differs
    assert not any('mask_decoder' in name or 'text_hidden_fcs' in name for name in differs)


def test_gradient_stays_out_of_frozen_parts(build_loops, make_batch):
    model = build_loops(denoise_weight=1.0, mask_weight=1.0).train()
    model.loops['loop1'].forward(model, make_batch(dict(key=1), dict(key=2, caption='a cat')), 0)['loss'].backward()
    model.loops['loop2'].forward(model, make_batch(dict(key=3, caption='a dog', describes=True)), 0)['loss'].backward()
    assert [name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None] == []
    assert all(p.grad is not None for name, p in model.named_parameters() if '.lora_' in name)
    assert all(value.grad is None for value in model.teacher.values.values())


def test_human_sentences_need_no_teacher(build_loops, make_batch, monkeypatch):
    model = build_loops()
    asked = spy(monkeypatch, model.teacher, 'describe', lambda args, _: (args[1], [r.tolist() for r in args[2]]))
    passes = read_rows(monkeypatch, model)
    human = make_batch(dict(key=1, caption='A Dog.'), dict(key=2, caption='a cat'))
    out = model.loops['loop1'].forward(model, human, 0)
    assert asked == [] and len(passes) == 1 and out['denoise'] == 0
    questions = [model.base.vocabulary.decode(row.input_ids) for row in passes[0].rows]
    assert ' a dog' in questions[0] and 'dog.' not in questions[0] and ' a cat' in questions[1]
    mixed = make_batch(dict(key=1, caption='a dog'), dict(key=2))
    model.loops['loop1'].forward(model, mixed, 0)
    assert asked == [([1], [mixed['prompt_masks'][1].tolist()])]


@pytest.mark.parametrize('bridge', ['gumbel', 'discrete'])
def test_what_follows_the_terminator_changes_nothing(build_loops, make_batch, monkeypatch, bridge):
    model = build_loops(max_caption_len=30, bridge=bridge)
    batch = make_batch(dict(key=1), dict(key=2))
    vocabulary, network = model.base.vocabulary, model.base.network
    head, describe = network.logits, model.teacher.describe

    def loss_when_the_teacher_says(*texts):
        scripts = [vocabulary.encode(text) for text in texts]
        state = SimpleNamespace(step=0)

        def say(hidden_states):
            logits = torch.zeros(len(scripts), 640)
            for row, script in enumerate(scripts):
                logits[row, script[min(state.step, len(script) - 1)]] = 1
            state.step += 1
            return logits

        def scripted(*args):
            monkeypatch.setattr(network, 'logits', say)
            try:
                return describe(*args)
            finally:
                monkeypatch.setattr(network, 'logits', head)

        monkeypatch.setattr(model.teacher, 'describe', scripted)
        out = model.loops['loop1'].forward(model, batch, 0, preview=True)
        return out['loss'].detach(), out['caption_len'], out['preview']['captions']

    long = 'a very big red dog on a green mat<|end|>'
    clean = loss_when_the_teacher_says('a dog<|end|>', long)
    for junk in ('junk', ' a cat<|end|> on a mat', '\nAnd more.'):
        said = loss_when_the_teacher_says('a dog<|end|>' + junk, long)
        assert said[0] == clean[0] and said[1:] == clean[1:]
    other = loss_when_the_teacher_says('a big dog<|end|>', long)
    assert other[0] != clean[0] and other[1] > clean[1]


def test_final_stop_is_dropped_from_the_teachers_caption(build_loops, make_batch, monkeypatch):
    model = build_loops(max_caption_len=30)
    batch = make_batch(dict(key=1), dict(key=2))
    passes = read_rows(monkeypatch, model)
    speak(monkeypatch, model, 'a dog.', '.')
    model.loops['loop1'].forward(model, batch, 0)
    assert [len(row.soft) for row in passes[1].rows] == [len(model.base.vocabulary.encode('a dog')), 1]


def test_student_reads_corrupted_tokens_and_denoises_them(build_loops, make_batch, monkeypatch):
    model = build_loops(max_caption_len=30, mask_ratio=0.25)
    vocabulary, batch = model.base.vocabulary, make_batch(dict(key=1))
    ids = vocabulary.encode('a very big red dog on a mat')
    speak(monkeypatch, model, ids)
    reads = spy(monkeypatch, model.base, 'read', lambda args, result: result)
    out = model.loops['loop1'].forward(model, batch, 3)
    padded, states = reads[0]
    read = padded.rows[0].input_ids[-len(ids):]
    changed = [place for place, (old, new) in enumerate(zip(ids, read)) if old != new]
    assert len(changed) == round(0.25 * len(ids))
    assert vocabulary.decode(padded.rows[0].input_ids[: -len(ids)]) == prompts.caption_prompt(
        PHI3_CHAT, 16, int(batch['prompt_masks'].sum())
    )
    start = len(padded.rows[0].input_ids) - len(ids)
    logprobs = model.base.network.logits(states[0]).log_softmax(dim=-1)
    expected = -sum(logprobs[start + place - 1, ids[place]] for place in changed) / len(changed)
    assert out['denoise'] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_student_samples_from_its_logits_at_the_caption_positions(build_loops, make_batch, monkeypatch):
    model = build_loops(max_caption_len=30)
    speak(monkeypatch, model, 'a big dog', 'it')
    batch = make_batch(dict(key=1), dict(key=2))
    reads = spy(monkeypatch, model.base, 'read', lambda args, result: result)
    bridged = []
    bridge = model.loops['loop1'].bridge
    monkeypatch.setattr(model.loops['loop1'], 'bridge',
                        lambda *args: bridged.append((args[0], bridge(*args))) or bridged[-1][1])
    model.loops['loop1'].forward(model, batch, 0)
    (logits, out), (padded, states) = bridged[0], reads[0]
    for index, row in enumerate(padded.rows):
        count, end = len(logits[index]), len(row.input_ids)
        expected = model.base.network.logits(states[index, end - count - 1 : end - 1])
        torch.testing.assert_close(logits[index], expected)
        assert reads[1][0].rows[index].soft is out.embeds[index]


def test_loop1_loss_is_the_sum_of_its_weighted_parts(build_loops, make_batch):
    batch = make_batch(dict(key=1), dict(key=2, caption='a cat'))
    for weights in (dict(), dict(answer_weight=0.0), dict(answer_weight=0.3, denoise_weight=0.7)):
        model = build_loops(**weights)
        out = model.loops['loop1'].forward(model, batch, 0)
        answer, denoise = weights.get('answer_weight', 1.0), weights.get('denoise_weight', 0.0)
        expected = out['mask'] + out['dice'] + answer * out['answer'] + denoise * out['denoise']
        assert float(out['loss'].detach()) == pytest.approx(expected, rel=1e-6)
        assert out['denoise'] > 0


def test_discrete_bridge_is_plain_text(build_loops, make_batch, monkeypatch):
    """No first student pass and no gradient into it: the caption is as good as a human's."""
    model = build_loops(bridge='discrete', max_caption_len=30)
    speak(monkeypatch, model, 'A red dog.')
    passes = read_rows(monkeypatch, model)
    out = model.loops['loop1'].forward(model, make_batch(dict(key=1)), 0)
    human = model.loops['loop1'].forward(model, make_batch(dict(key=1, caption='a red dog')), 0)
    assert len(passes) == 2 and passes[0].rows[0].soft is None
    assert out['loss'] == human['loss']
    expected = gradients(model, human['loss'])
    for name, gradient in gradients(model, out['loss']).items():
        assert torch.equal(gradient, expected[name]), name


def test_long_human_sentences_are_cut_to_the_limit(build_loops, make_batch, monkeypatch):
    model = build_loops(max_caption_len=4)
    passes = read_rows(monkeypatch, model)
    sentence = 'a very big red dog on a green mat'
    model.loops['loop1'].forward(model, make_batch(dict(key=1, caption=sentence)), 0)
    text = model.base.vocabulary.decode(passes[0].rows[0].input_ids)
    cut = model.base.vocabulary.decode(model.base.vocabulary.encode(sentence)[:4])
    assert f' {cut}' in text and sentence not in text


def test_preview(build_loops, make_batch):
    model = build_loops()
    batch = make_batch(dict(key=1), dict(key=2, caption='A cat.'))
    preview = model.loops['loop1'].forward(model, batch, 0, preview=True)['preview']
    assert preview['captions'][1] == 'A cat.' and isinstance(preview['captions'][0], str)
    assert preview['predicted'].shape == (2, 128, 128) and preview['predicted'].dtype == torch.bool


# -- means over rows ------------------------------------------------------------------------------------------------


SAMPLES = {
    'loop1': (dict(key=1), dict(key=2, pair=True), dict(key=3, caption='a cat on a very long green mat'), dict(key=8)),
    'loop2': (dict(key=1, caption='A dog. It is big.'), dict(key=2, caption='a cat'), dict(key=3, caption='it')),
}


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


# -- loop 2 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [32, 30])
def test_predicted_regions_touch_the_mask(size):
    logits = torch.randn(5, size, size, generator=torch.Generator().manual_seed(0)) - 3
    logits[:, 3, 3] = 1.0
    assert torch.equal(predicted_regions(logits, 4), region_grid(logits > 0, 4))


def test_empty_prediction_turns_on_the_cell_of_its_highest_logit():
    logits = torch.full((2, 32, 32), -5.0)
    logits[0, 9, 31] = -1.0
    logits[1, 0, 8] = -2.0
    regions = predicted_regions(logits, 4)
    assert regions.nonzero().tolist() == [[0, 1, 3], [1, 0, 1]]


def test_empty_mask_never_skips_the_description(build_loops, make_batch, monkeypatch):
    model = build_loops()
    segment = model.base.segment
    monkeypatch.setattr(model.base, 'segment', lambda *args: segment(*args) - 1e4)
    passes = read_rows(monkeypatch, model)
    out = model.loops['loop2'].forward(model, make_batch(*SAMPLES['loop2']), 0)
    assert out['empty_mask'] == 1.0 and out['caption'] > 0
    assert [int(row.region.sum()) for row in passes[1].rows] == [1, 1, 1]


def test_loop2_rows_and_labels(build_loops, make_batch, monkeypatch):
    """Step A supervises the answer, step B the caption with its terminator, and never a pad."""
    model = build_loops(max_caption_len=30)
    vocabulary = model.base.vocabulary
    masks = spy(monkeypatch, model.base, 'segment', lambda args, result: result)
    passes = read_rows(monkeypatch, model)
    model.loops['loop2'].forward(model, make_batch(*SAMPLES['loop2']), 0)
    step_a, step_b = passes
    regions = region_grid(masks[0] > 0, 4)
    for index, sample in enumerate(SAMPLES['loop2']):
        text = vocabulary.decode(step_a.rows[index].input_ids)
        assert f' {prompts.phrase(sample["caption"])}' in text
        supervised = vocabulary.decode([label for label in step_a.labels[index].tolist() if label != IGNORE])
        assert supervised in {f'{answer}<|end|>' for answer in prompts.SEGMENTATION_ANSWERS}
        described = step_b.rows[index]
        labels = [label for label in step_b.labels[index].tolist() if label != IGNORE]
        assert labels == vocabulary.encode(sample['caption'] + '<|end|>')
        assert described.input_ids[-len(labels):] == labels
        assert torch.equal(described.region, regions[index].flatten())
    for batch in passes:
        assert len({len(row.input_ids) for row in batch.rows}) > 1
        assert (batch.labels[~batch.attention_mask.bool()] == IGNORE).all()


def test_loop2_refuses_a_row_without_caption(build_loops, make_batch):
    with pytest.raises(ValueError, match='no caption.*train_dataloader.*loop2_dataloader'):
        model = build_loops()
        model.loops['loop2'].forward(model, make_batch(dict(key=3, caption=None)), 0)


def test_loop2_loss_and_what_it_trains(build_loops, make_batch):
    batch = make_batch(*SAMPLES['loop2'])
    model = build_loops(answer_weight=0.3)
    out = model.loops['loop2'].forward(model, batch, 0)
    expected = out['caption'] + 0.3 * out['answer']
    assert float(out['loss'].detach()) == pytest.approx(expected, rel=1e-6) and 'mask' not in out
    found = gradients(model, out['loss'])
    for name, gradient in found.items():
        trained = '.lora_' in name or '.mlp1.' in name
        assert trained or gradient.eq(0).all(), name  # mask' enters without gradient
    assert found['base.network.mlp1.1.weight'].abs().sum() > 0
    with_mask = build_loops(answer_weight=0.3, mask_weight=0.5)
    out = with_mask.loops['loop2'].forward(with_mask, batch, 0)
    assert float(out['loss'].detach()) == pytest.approx(expected + 0.5 * out['mask'], rel=1e-5)
    found = gradients(with_mask, out['loss'])
    assert found['base.network.text_hidden_fcs.0.weight'].abs().sum() > 0


def test_both_steps_of_loop2_train_the_projector(build_loops, make_batch):
    batch = make_batch(*SAMPLES['loop2'])
    both, caption = (
        gradients(model, model.loops['loop2'].forward(model, batch, 0)['loss'])['base.network.mlp1.1.weight']
        for model in (build_loops(), build_loops(answer_weight=0.0))
    )
    assert caption.abs().sum() > 0 and (both - caption).abs().sum() > 0


def layout_of(model):
    return FlatLayout.from_params(model.trainables().items(), groups_of_loops(model.loops.values()),
                                  [[name] for name in model.loops])


# -- what surgery is given ------------------------------------------------------------------------------------------

# The decoder is trained through the mask that is selected, its second; softmax does not see a bias that all keys share.
WITHOUT_GRADIENT = re.compile(r'output_hypernetworks_mlps\.[023]\.|mask_decoder\..*k_proj\.bias')


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
    model(None, given, mode='surrogate').backward()
    for parameter, gradient in zip(model.trainables().values(), given):
        assert torch.equal(parameter.grad, gradient)
    with pytest.raises(ValueError, match='shorter'):
        model(None, given[:-1], mode='surrogate')


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
    with pytest.raises(ValueError, match="model.bridge='soft' is unknown"):
        build_loops(bridge='soft')
    with pytest.raises(ValueError, match="unknown mode 'loop3'"):
        build_loops()(None, mode='loop3')
