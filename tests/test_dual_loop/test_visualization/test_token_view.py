"""The token view against the rows that the models themselves build, and against the tokenizer."""

import pytest
import torch

from dual_loop.models import caption_loop
from dual_loop.visualization.token_view import SequenceBuilder, token_chips
from llava_sam2.portable import prompts
from llava_sam2.portable.rows import caption_row, segmentation_row
from llava_sam2.portable.sequences import IGNORE
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.tokenizer import load_tokenizer

CAPTION = 'The big red square, left of a small circle.'


@pytest.fixture(scope='module')
def make_builder(network_sizes):
    def make(step=0, network=None, **options):
        base = dict(tokenizer='assets/tiny', network=network or network_sizes, random_weights=True)
        return SequenceBuilder(dict(base=base, max_caption_len=6, **options), step)

    return make


def rows_read(base, run):
    """The rows of every pass of the language model during ``run()``."""
    passes, read = [], base.read_rows

    def recorded(rows, images):
        passes.append(rows)
        return read(rows, images)

    base.read_rows = recorded
    run()
    return passes


def same(view, row):
    assert (view.row.input_ids, view.row.labels, view.row.image) == (row.input_ids, row.labels, row.image)


def test_human_sentences_are_the_rows_of_loop_1(build_loops, make_batch, make_builder):
    model, data = build_loops(), make_batch(dict(key=1, caption=CAPTION), dict(key=2, caption='A star.', pair=True))
    [rows] = rows_read(model.base, lambda: model.loops['loop1'].forward(model, data, step=3))
    for index, row in enumerate(rows):
        [view] = make_builder(step=3).views('loop 1', data, index)
        same(view, row)


def test_rows_without_caption_are_those_of_loop_1_round_the_caption(build_loops, make_batch, make_builder):
    model, data = build_loops(), make_batch(dict(key=3, pair=True))
    read, written = rows_read(model.base, lambda: model.loops['loop1'].forward(model, data, step=0))
    first, second = make_builder().views('loop 1', data, 0)
    assert [chip.kind for chip in first.chips].index('slot') == len(first.chips) - 1
    prompt = first.row.input_ids[:-1]
    assert read[0].input_ids[:len(prompt)] == prompt and torch.equal(first.row.region, read[0].region)
    assert first.row.image == read[0].image and not any(chip.supervised for chip in first.chips)
    [place] = [index for index, chip in enumerate(second.chips) if chip.kind == 'slot']
    known = [sum(([*chip.ids] for chip in part), []) for part in (second.chips[:place], second.chips[place + 1:])]
    ids, slot = written[0].input_ids, written[0].slot
    assert known == [ids[:slot], ids[slot + len(written[0].soft):]] and second.row.image == written[0].image
    assert labels_of(second.chips) == [label for label in written[0].labels if label != IGNORE]


def test_descriptions_are_the_rows_of_loop_2(build_loops, make_batch, make_builder, monkeypatch):
    model, data = build_loops(), make_batch(dict(key=4, caption=CAPTION, describes=True))
    monkeypatch.setattr(caption_loop, 'predicted_regions', lambda logits, grid: data['prompt_masks'])  # a perfect mask'
    (step_a,), (step_b,) = rows_read(model.base, lambda: model.loops['loop2'].forward(model, data, step=1))
    view_a, view_b = make_builder(step=1).views('loop 2', data, 0)
    same(view_a, step_a)
    same(view_b, step_b)
    assert torch.equal(view_b.row.region, step_b.region)


def test_supervised_and_held_out_rows_are_those_of_the_base(build_base, make_batch, make_builder):
    base, data = build_base(), make_batch(dict(key=5, caption=CAPTION, describes=True), dict(key=6, caption='A star'))
    [rows] = rows_read(base, lambda: base.supervised_losses(data, step=2))
    described, phrase = (make_builder(step=2).views('training', data, index) for index in range(2))
    for view, row in zip([described[0], *phrase, described[1]], rows, strict=True):
        same(view, row)
    [rows] = rows_read(base, lambda: base.forced_masks(data))
    for index, row in enumerate(rows):
        [view] = make_builder().views('held out', data, index)
        same(view, row)
        assert labels_of(view.chips) == [], 'nothing is learned from held-out samples'


def labels_of(chips):
    return [index for chip in chips if chip.supervised for index in chip.ids]


def text_of(chips):
    return ''.join(prompts.IMG_CONTEXT * len(chip.ids) if chip.kind in ('image', 'region') else chip.text
                   for chip in chips)


@pytest.mark.parametrize('caption', [CAPTION, 'naïve 日本語 🙂🙂 «x»', 'line\nbreak  and   spaces', '<b>&amp;'])
def test_chips_hold_all_tokens_their_labels_and_their_text(vocabulary, caption):
    region = torch.eye(4, dtype=torch.bool)
    for row in (caption_row(vocabulary, 16, 0, region, caption),
                segmentation_row(vocabulary, 16, 0, caption, prompts.SEGMENTATION_QUESTIONS[2], 'It is [SEG].')):
        chips = list(token_chips(vocabulary, row.input_ids, row.labels))
        assert [index for chip in chips for index in chip.ids] == row.input_ids
        assert labels_of(chips) == [label for label in row.labels if label != IGNORE] != []
        assert text_of(chips) == vocabulary.decode(row.input_ids)
        assert '\N{REPLACEMENT CHARACTER}' not in text_of(chips)


def test_image_and_region_tokens_are_collapsed_and_seg_stands_out(vocabulary):
    region = torch.eye(4, dtype=torch.bool)
    row = caption_row(vocabulary, 16, 0, region, 'a star')
    found = [(chip.kind, chip.text) for chip in token_chips(vocabulary, row.input_ids, row.labels)
             if chip.kind != 'text']
    assert found == [('tag', '<img>'), ('image', '<IMG_CONTEXT> x 16'), ('tag', '</img>'),
                     ('tag', '<vp>'), ('region', '<IMG_CONTEXT> x 4'), ('tag', '</vp>')]
    row = segmentation_row(vocabulary, 16, 0, 'a star', prompts.EVALUATION_QUESTION, 'It is [SEG].')
    [seg] = [chip for chip in token_chips(vocabulary, row.input_ids, row.labels) if chip.kind == 'seg']
    assert seg.text == '[SEG]' and seg.ids == (vocabulary.seg_id,) and seg.supervised


def test_a_character_that_a_special_token_cuts_is_marked(vocabulary):
    first, last = vocabulary.encode('ж')  # two bytes, two tokens
    ids = [first, vocabulary.seg_id, last]
    mark = '\N{REPLACEMENT CHARACTER}'
    assert [(chip.text, chip.ids) for chip in token_chips(vocabulary, ids, ids)] == [
        (mark, (first,)), ('[SEG]', (vocabulary.seg_id,)), (mark, (last,))]


def test_length_counts_what_is_known_and_what_is_supervised(make_batch, make_builder, vocabulary):
    first, second = make_builder().views('loop 1', make_batch(dict(key=3)), 0)
    assert first.length == f'{len(first.row.input_ids) - 1} tokens and a caption, 0 supervised'
    answer = len(labels_of(second.chips))
    assert answer > 4 and second.length.endswith(f' tokens and a caption, {answer} supervised')


def test_an_answer_without_weight_is_not_supervised(make_batch, make_builder):
    data = make_batch(dict(key=4, caption=CAPTION, describes=True))
    step_a, step_b = make_builder(answer_weight=0.0).views('loop 2', data, 0)
    assert labels_of(step_a.chips) == [] and labels_of(step_b.chips) != []


def test_what_the_student_learns_of_the_caption_is_said(make_batch, make_builder):
    data = make_batch(dict(key=3))
    notes = [make_builder(**options).views('loop 1', data, 0)[0].note
             for options in (dict(denoise_weight=0.25), dict(), dict(bridge='discrete'))]
    assert 'restore these (weight 0.25)' in notes[0]
    assert 'student' in notes[1] and 'restore' not in notes[1]
    assert 'student' not in notes[2]


def test_what_else_the_mask_and_the_caption_are_judged_by_is_said(make_batch, make_builder):
    data = make_batch(dict(key=3), dict(key=4, caption=CAPTION))
    builder = make_builder(distill_weight=0.5, reward_weight=0.25)
    pseudo, human = (builder.views('loop 1', data, row)[-1].note for row in (0, 1))
    assert "teacher's (weight 0.5)" in pseudo and "reward (weight 0.25)" in pseudo
    assert "teacher's (weight 0.5)" in human and 'reward' not in human
    assert all(make_builder().views('loop 1', data, row)[-1].note == '' for row in (0, 1))


@pytest.mark.parametrize('loader', ['loop 2', 'training', 'held out'])
def test_a_missing_caption_is_an_error_where_one_is_needed(make_batch, make_builder, loader):
    with pytest.raises(ValueError, match=f'sample7 of synthetic has no caption, which {loader}'):
        make_builder().views(loader, make_batch(dict(key=7)), 0)


@pytest.mark.parametrize(('part', 'sizes', 'message'), [
    ('vision_config', dict(image_size=224), 'image_size=112, but the model reads 224'),
    ('grounding_config', dict(image_size=256), 'grounding_size=128, but the model reads 256'),
    ('vision_config', dict(patch_size=28), 'region_grid=4, but the model reads 2'),
])
def test_samples_of_another_size_than_the_models_are_refused(make_batch, make_builder, network_sizes, part, sizes,
                                                             message):
    network = network_sizes | {part: network_sizes[part] | sizes}
    with pytest.raises(ValueError, match=message):
        make_builder(network=network).views('loop 1', make_batch(dict(key=1)), 0)


def test_a_config_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match='model.base.tokenizer'):
        SequenceBuilder({})


def test_sizes_come_from_the_config_or_from_the_folder_of_weights(network_sizes, checkout):
    stated = SequenceBuilder(dict(tokenizer='assets/tiny', network=network_sizes, pretrained='weights/not/here'))
    found = SequenceBuilder(dict(tokenizer='assets/tiny', pretrained='assets/tiny'))
    assert (stated.config.num_image_tokens, found.config.num_image_tokens) == (16, 49)
    with pytest.raises(FileNotFoundError, match='weights/not/here'):
        SequenceBuilder(dict(tokenizer='assets/tiny', pretrained='weights/not/here'))
    assert isinstance(found.vocabulary, Vocabulary)
    assert found.vocabulary.size == len(load_tokenizer(checkout / 'assets/tiny'))
