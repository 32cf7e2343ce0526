"""The losses of whole batches and their gradients against plain versions that take one row after the other."""

from itertools import permutations

import plain_loops
import pytest
import torch

from llava_sam2 import model as base_model
from llava_sam2 import text_rows
from llava_sam2.portable.generation import Decoded
from llava_sam2.randomness import seed_for

#: Rows of every kind: with and without human sentence, one image and two, an image met twice, no mask in image 2, no
#: region in image 1.
HUMAN, HUMAN_PAIR = dict(key=1, caption='A Red dog.'), dict(key=2, caption='a cat on a very long green mat', pair=True)
PSEUDO, PSEUDO_PAIR = dict(key=3), dict(key=4, pair=True)
SAME_IMAGE = dict(key=3, caption='it')
ORDERS = {
    'pseudo after human': (HUMAN, HUMAN_PAIR, PSEUDO, PSEUDO_PAIR),
    'pseudo before human': (PSEUDO_PAIR, PSEUDO, HUMAN_PAIR, HUMAN),
    'alternating': (HUMAN_PAIR, PSEUDO, SAME_IMAGE, PSEUDO_PAIR, HUMAN),
    'pseudo alone': (PSEUDO_PAIR, PSEUDO),
    'human alone': (SAME_IMAGE, HUMAN_PAIR),
}
#: What the teacher says of a row, by its key.
SAYS = {3: 'a very big red dog.', 4: 'it'}
WEIGHTS = (0.07, 0.31, 0.13, 0.29, 0.2)


@pytest.fixture(scope='module')
def model(build_loops):
    return build_loops(denoise_weight=0.7, answer_weight=0.3, mask_weight=0.6, max_caption_len=30).eval()


@pytest.fixture
def seeded(model, monkeypatch):
    """Give the model a seed for one test."""
    return lambda seed: monkeypatch.setattr(model.base, 'seed', seed)


def batch_of(make_batch, *rows: dict, broken: dict[int, str] | None = None) -> dict:
    """A batch with a weight of its own for each row; ``broken`` empties a field of rows."""
    data = make_batch(*rows)
    data['row_weights'] = torch.tensor(WEIGHTS[: len(rows)])
    data['sample_ids'] = [f'row{index} of {rows[index]["key"]}' for index in range(len(rows))]
    for row, name in (broken or {}).items():
        data[name][row] = False
    return data


def teach(monkeypatch, model, data, rows) -> dict[int, list[int]]:
    """Let the teacher say what belongs to the image and region that it is shown, whatever their order."""
    encode = model.base.vocabulary.encode
    taught = {index: encode(SAYS[row['key']]) for index, row in enumerate(rows) if row.get('caption') is None}

    def describe(images, image_of_row, regions, *_, **__):
        found = []
        for image, region in zip(image_of_row, regions, strict=True):
            [index] = [index for index in taught
                       if data['image1'][index] == image and torch.equal(data['prompt_masks'][index], region)]
            found.append(Decoded(list(taught[index]), True))
        return found

    monkeypatch.setattr(model.teacher, 'describe', describe)
    return taught


def gradients(model, loss) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.trainables().items())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for name, p, g in zip(names, parameters, found)}


def assert_equal(model, out: dict, parts: dict, loss: torch.Tensor) -> None:
    for name, value in parts.items():
        assert out[name] == pytest.approx(float(torch.as_tensor(value).detach()), rel=1e-4, abs=1e-5), name
    torch.testing.assert_close(out['loss'], loss, rtol=1e-4, atol=1e-5)
    expected = gradients(model, loss)
    for name, gradient in gradients(model, out['loss']).items():
        torch.testing.assert_close(gradient, expected[name], rtol=2e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize('order, seed', [*((order, 0) for order in ORDERS), ('alternating', 5)])
def test_loop1(model, make_batch, monkeypatch, seeded, order, seed):
    seeded(seed)
    rows = ORDERS[order]
    data = batch_of(make_batch, *rows)
    taught = teach(monkeypatch, model, data, rows)
    out = model.loops['loop1'].forward(model, data, 3, preview=True)
    parts, texts, logits = plain_loops.loop1(model, data, 3, seed, taught)
    loss = parts['mask'] + parts['dice'] + 0.3 * parts['answer'] + 0.7 * parts['denoise']
    assert_equal(model, out, parts, loss)
    preview = out['preview']
    assert preview['captions'] == [texts.get(index, row.get('caption')) for index, row in enumerate(rows)]
    for mask, expected in zip(preview['predicted'], logits):
        full = torch.nn.functional.interpolate(expected[None, None], size=(128, 128), mode='bilinear')[0, 0] > 0
        assert (mask != full).float().mean() < 1e-3


LIMITED = dict(bridge_gradient=0.4, bridge_max_norm=0.02)


@pytest.mark.parametrize('options', [dict(slot='teacher'), LIMITED, dict(slot='teacher', bridge_gradient=0.0),
                                     dict(bridge_max_norm=0.05)], ids=str)
def test_loop1_with_another_slot_and_a_limited_bridge(model, make_batch, monkeypatch, options):
    rows = ORDERS['alternating']
    data = batch_of(make_batch, *rows)
    taught = teach(monkeypatch, model, data, rows)
    asked = dict(slot=options.get('slot', 'student'), factor=options.get('bridge_gradient', 1.0),
                 max_norm=options.get('bridge_max_norm', torch.inf))
    runs = [plain_loops.loop1(model, data, 3, 0, taught, **each) for each in (asked, {})]
    for name, value in options.items():
        monkeypatch.setattr(model.loops['loop1'], name, value)
    parts, texts, _ = runs[0]
    loss, by_default = (each['mask'] + each['dice'] + 0.3 * each['answer'] + 0.7 * each['denoise'] for each, *_ in runs)
    out = model.loops['loop1'].forward(model, data, 3, preview=True)
    assert_equal(model, out, parts, loss)
    changed = gradients(model, model.loops['loop1'].forward(model, data, 3)['loss'])
    before = gradients(model, by_default)
    assert not all(torch.allclose(changed[name], before[name], rtol=2e-2, atol=2e-4) for name in before)
    assert out['preview']['captions'] == [texts.get(index, row.get('caption')) for index, row in enumerate(rows)]
    if options.get('slot') == 'teacher':
        assert {texts[1], texts[3]} == {'a very big red dog', 'it'}


def test_loop1_without_the_rows_that_the_teacher_does_not_find(model, make_batch, monkeypatch):
    """They count with value 0, and the others as before."""
    rows = ORDERS['alternating']
    data = batch_of(make_batch, *rows)
    taught = teach(monkeypatch, model, data, rows)
    texts = [model.base.vocabulary.decode(taught[row]) if row in taught else 'x' for row in range(len(rows))]
    found = model.base.forced_masks(data | dict(captions=texts))  # the teacher is the student at the start
    ious = {row: int((found[row] & data['masks2'][row]).sum()) / int((found[row] | data['masks2'][row]).sum())
            for row in taught}
    threshold, dropped = sum(ious.values()) / 2, min(ious, key=ious.get)
    assert min(ious.values()) < 0.999 * threshold
    monkeypatch.setattr(model.loops['loop1'], 'min_cycle_iou', threshold)
    out = model.loops['loop1'].forward(model, data, 3)
    assert float(out['rows_kept']) == 0.5 and float(out['cycle_iou']) == pytest.approx(threshold, rel=1e-5)
    data['row_weights'][dropped] = 0
    parts, *_ = plain_loops.loop1(model, data, 3, 0, taught)
    assert_equal(model, out, parts, parts['mask'] + parts['dice'] + 0.3 * parts['answer'] + 0.7 * parts['denoise'])


@pytest.mark.parametrize('name', ['masks2', 'prompt_masks'])
@pytest.mark.parametrize('broken', [0, 1, 2])
def test_loop1_with_a_row_that_cannot_be_used(model, make_batch, monkeypatch, name, broken):
    rows = (PSEUDO_PAIR, HUMAN, PSEUDO)
    data = batch_of(make_batch, *rows, broken={broken: name})
    taught = teach(monkeypatch, model, data, rows)
    parts, _, _ = plain_loops.loop1(model, data, 0, 0, taught)
    loss = parts['mask'] + parts['dice'] + 0.3 * parts['answer'] + 0.7 * parts['denoise']
    assert_equal(model, model.loops['loop1'].forward(model, data, 0), parts, loss)


@pytest.mark.parametrize(('share', 'asked'), [(0.5, [False, True]), (1.0, [True, True])])
def test_loop1_whose_teacher_is_asked_for_phrases(model, make_batch, monkeypatch, share, asked):
    """Teacher and student read one question, drawn for each row."""
    rows, loop = ORDERS['alternating'], model.loops['loop1']
    data = batch_of(make_batch, *rows)
    monkeypatch.setattr(loop, 'short_captions', share)
    questions, describe = [], model.teacher.describe
    monkeypatch.setattr(model.teacher, 'describe', lambda *args, short: questions.append(short) or describe(
        *args, short=short))
    loop.prepare(model, [data], 3)
    assert questions == [asked]
    taught = teach(monkeypatch, model, data, rows)
    parts, _, _ = plain_loops.loop1(model, data, 3, 0, taught, short=share)
    loss = parts['mask'] + parts['dice'] + 0.3 * parts['answer'] + 0.7 * parts['denoise']
    assert_equal(model, loop.forward(model, data, 3), parts, loss)


@pytest.mark.parametrize('short', [False, True])
@pytest.mark.parametrize('seed', [0, 5])
def test_loop2(model, make_batch, monkeypatch, seeded, seed, short):
    seeded(seed)
    data = batch_of(make_batch, HUMAN_PAIR, SAME_IMAGE, dict(HUMAN, describes=True), broken={1: 'masks2'})
    monkeypatch.setattr(model.loops['loop2'], 'short_captions', short)
    parts = plain_loops.loop2(model, data, 3, seed, short)
    loss = parts['caption'] + 0.3 * parts['answer'] + 0.6 * parts['mask']
    assert_equal(model, model.loops['loop2'].forward(model, data, 3), parts, loss)


@pytest.mark.parametrize('short', [False, True])
def test_supervised_losses(model, make_batch, short):
    described = [dict(row, describes=True) for row in (HUMAN_PAIR, HUMAN)]
    data = batch_of(make_batch, SAME_IMAGE, described[0], dict(key=6, caption='a mat'), described[1])
    losses = model.base.supervised_losses(data, 2, short)
    expected = plain_loops.supervised(model.base, data, 2, 0, short)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5, msg=name)
    found, plain = gradients(model, sum(losses.values())), gradients(model, sum(expected.values()))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[name], rtol=2e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize('tied', [False, True])
def test_both_loops_under_the_other_template(build_loops, network_sizes, make_batch, monkeypatch, tied):
    """Its terminator is one token, which no caption holds; and with a head that is the embedding."""
    llm = network_sizes['llm_config'] | dict(tie_word_embeddings=tied)
    base = dict(network=network_sizes | dict(llm_config=llm, template='qwen_chat'), train_token_rows=tied)
    model = build_loops(base, denoise_weight=0.7, answer_weight=0.3, mask_weight=0.6, max_caption_len=30).eval()
    rows = ORDERS['alternating']
    data = batch_of(make_batch, *rows)
    taught = teach(monkeypatch, model, data, rows)
    parts, _, _ = plain_loops.loop1(model, data, 3, 0, taught)
    loss = parts['mask'] + parts['dice'] + 0.3 * parts['answer'] + 0.7 * parts['denoise']
    assert_equal(model, model.loops['loop1'].forward(model, data, 3), parts, loss)
    data = batch_of(make_batch, HUMAN_PAIR, SAME_IMAGE, HUMAN)
    parts = plain_loops.loop2(model, data, 3, 0)
    loss = parts['caption'] + 0.3 * parts['answer'] + 0.6 * parts['mask']
    assert_equal(model, model.loops['loop2'].forward(model, data, 3), parts, loss)


def test_every_draw_of_a_row_depends_on_seed_step_and_sample(model, make_batch, monkeypatch, seeded):
    """Another value of any of the three changes the corruption, the noise, the points and the templates."""
    made = []
    for seed, step, name in [(0, 3, 'a'), (1, 3, 'a'), (0, 4, 'a'), (0, 3, 'b'), (0, 3, 'a')]:
        seeded(seed)
        data = batch_of(make_batch, PSEUDO)
        data['sample_ids'] = [name]
        teach(monkeypatch, model, data, [PSEUDO])
        draws = []
        for module in (base_model, text_rows):
            monkeypatch.setattr(
                module, 'seed_for', lambda *key, draws=draws: draws.append(seed_for(*key)) or seed_for(*key))
        model.loops['loop1'].forward(model, data, step)
        made.append(draws)
    assert {len(draws) for draws in made} == {4} and len(set(made[0])) == 4
    assert made[0] == made[4]
    assert all(not set(one) & set(other) for one, other in permutations(made[:4], 2))
