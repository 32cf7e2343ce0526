"""Loop 1 on tiny synthetic batches."""

from types import SimpleNamespace

import pytest
import torch
from loop_probes import gradients, read_rows, speak, spy

from dual_loop.models import MaskLoop
from llava_sam2.portable import prompts
from llava_sam2.portable.templates import PHI3_CHAT


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


def test_the_batches_of_a_step_are_described_together_and_as_if_alone(build_loops, make_batch, monkeypatch):
    model = build_loops()
    loop = model.loops['loop1']
    batches = [make_batch(dict(key=1), dict(key=2, caption='a dog')), make_batch(dict(key=3, caption='a cat')),
               make_batch(dict(key=4), dict(key=5, pair=True))]
    asked = spy(monkeypatch, model.teacher, 'describe', lambda args, _: len(args[1]))
    prepared = loop.prepare(model, batches, 0)
    assert asked == [3] and [len(each.captions) for each in prepared] == [1, 0, 2]
    for batch, ready in zip(batches, prepared):
        alone, together = loop.forward(model, batch, 7), loop.forward(model, batch, 7, prepared=ready)
        assert torch.equal(alone['loss'], together['loss']) and alone['caption_len' if ready.captions else 'mask'] == \
            together['caption_len' if ready.captions else 'mask']


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
    reads = spy(monkeypatch, model.base, 'read_rows', lambda args, result: result)
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
    assert float(out['denoise']) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_student_samples_from_its_logits_at_the_caption_positions(build_loops, make_batch, monkeypatch):
    model = build_loops(max_caption_len=30)
    speak(monkeypatch, model, 'a big dog', 'it')
    batch = make_batch(dict(key=1), dict(key=2))
    reads = spy(monkeypatch, model.base, 'read_rows', lambda args, result: result)
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
        assert float(out['loss'].detach()) == pytest.approx(float(expected), rel=1e-6)
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


# Options -------------------------------------------------------------------------------------------------------------


def test_a_detached_bridge_leaves_the_first_pass_to_the_denoising(build_loops, make_batch, monkeypatch):
    """Its states get a gradient with the bridge, none without, and from the denoising loss all the same."""
    batch = make_batch(dict(key=1), dict(key=2, pair=True))
    reached = []
    for options in (dict(), dict(bridge_gradient=0.0), dict(bridge_gradient=0.0, denoise_weight=1.0)):
        model = build_loops(**options)
        reads = spy(monkeypatch, model.base, 'read_rows', lambda args, result: result[1])
        loss = model.loops['loop1'].forward(model, batch, 0)['loss']
        reached.append(torch.autograd.grad(loss, reads[0], allow_unused=True)[0] is not None)
    assert reached == [True, False, True]


def test_the_options_are_off_by_default(build_loops, make_batch, monkeypatch):
    """Nothing is looked for, the bridge samples, and its captions are what the second pass reads."""
    model = build_loops()
    asked = spy(monkeypatch, model.base.text_rows, 'monitored', lambda args, _: args)
    given = []
    bridge = model.loops['loop1'].bridge
    monkeypatch.setattr(model.loops['loop1'], 'bridge', lambda *args, **more: given.append(more) or bridge(*args))
    out = model.loops['loop1'].forward(model, make_batch(dict(key=1), dict(key=2)), 0)
    assert asked == [] and given == [{}] and not {'rows_kept', 'cycle_iou'} & out.keys()


def test_what_is_found_again_is_asked_of_the_rows_without_caption(build_loops, make_batch, monkeypatch):
    model = build_loops(min_cycle_iou=0.5, max_caption_len=30, bridge='discrete')
    loop = model.loops['loop1']
    speak(monkeypatch, model, 'A red dog.', 'it')
    asked = spy(monkeypatch, model.base.text_rows, 'monitored', lambda args, _: args)
    human = make_batch(dict(key=1, caption='a cat'))
    mixed = make_batch(dict(key=1, caption='a cat'), dict(key=2, pair=True), dict(key=3))
    assert loop.prepare(model, [human], 0)[0].ious is None and asked == []
    assert 'rows_kept' not in loop.forward(model, human, 0)
    loop.forward(model, mixed, 0)
    assert asked == [(2, 'A red dog.'), (3, 'it')]  # image 2 of the pair, and the one image


def test_a_batch_of_which_nothing_is_found_gives_zero_with_a_graph(build_loops, make_batch):
    model = build_loops(min_cycle_iou=1.0, denoise_weight=0.5, bridge_max_norm=0.1)
    out = model.loops['loop1'].forward(model, make_batch(dict(key=1), dict(key=2, pair=True)), 0)
    assert out['rows_kept'] == 0 and 0 <= out['cycle_iou'] < 1
    for name in ('loss', 'mask', 'dice', 'answer', 'denoise'):
        assert out[name] == 0, name
    assert all(gradient.eq(0).all() for gradient in gradients(model, out['loss']).values())


def test_a_stop_is_heard_before_every_batch_that_is_looked_through(build_loops, make_batch, monkeypatch):
    model = build_loops(min_cycle_iou=0.5)
    speak(monkeypatch, model, 'a dog', 'it')
    asked = spy(monkeypatch, model.base, 'read_rows', lambda args, _: args)
    polls = iter([None, InterruptedError()])

    def poll():
        if error := next(polls):
            raise error

    model.train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(InterruptedError):
        model.loops['loop1'].prepare(model, [make_batch(dict(key=1)), make_batch(dict(key=2))], 0, poll)
    assert len(asked) == 1 and model.base.training
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_what_is_shown_of_a_row_says_its_options(build_loops, make_batch):
    rows, batch = build_loops().base.text_rows, make_batch(dict(key=1))
    [plain, _], [first, second] = (list(MaskLoop(**options).passages(rows, batch, 0, 0)) for options in (
        dict(), dict(slot='teacher', min_cycle_iou=0.25)))
    assert 'finds' not in plain.note and 'IoU of at least 0.25' in first.note
    assert "teacher's caption" in second.slot_text and "gradient to the student's" in second.slot_text


class OwnBridge:
    def __call__(self, logits, keys, weight, vocabulary):
        raise NotImplementedError


def test_options_that_make_no_sense_are_refused(monkeypatch):
    for options, named in [
        (dict(slot='pupil'), "model.slot='pupil'"), (dict(min_cycle_iou=1.5), 'min_cycle_iou=1.5'),
        (dict(min_cycle_iou=float('nan')), 'min_cycle_iou=nan'), (dict(bridge_gradient=-1.0), 'bridge_gradient=-1'),
        (dict(max_caption_len=-4), 'max_caption_len=-4'), (dict(max_caption_len=2.5), 'max_caption_len=2.5'),
        (dict(bridge=dict(type=OwnBridge), slot='teacher'), 'given=.*OwnBridge is not'),
    ]:
        with pytest.raises(ValueError, match=named):
            MaskLoop(**options)
    assert isinstance(MaskLoop(bridge=dict(type=OwnBridge)).bridge, OwnBridge)
    MaskLoop(bridge='discrete', slot='teacher')  # there the teacher's words stand in the slot anyway
