"""Rows of training: what is drawn for them, and what they say."""

import pytest
import torch

from llava_sam2.portable import prompts
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.text_rows import TextRows


@pytest.fixture
def rows(vocabulary, network_sizes):
    return TextRows(vocabulary, Sa2VAConfig(**network_sizes), seed=5)


def decoded(rows, row):
    """Text of the prompt, its run of image tokens as one; and of what is supervised."""
    targets = [token for token, label in zip(row.input_ids, row.labels) if label >= 0]
    prompt = [token for token, label in zip(row.input_ids, row.labels) if label < 0]
    return rows.vocabulary.decode(prompt).replace('<IMG_CONTEXT>' * 16, '*'), rows.vocabulary.decode(targets)


def test_the_seed_is_part_of_every_draw(rows):
    def drawn(name):
        return [rows.templates(step, name) for step in range(20)]

    first = drawn('a')
    assert first == drawn('a') != drawn('b')
    rows.seed = 6
    assert first != drawn('a')


def test_no_guess_at_the_answers_is_better_than_the_floor(rows):
    """One free distribution for each start of an answer, learned on all answers at once."""
    answers = []
    for step in range(100):
        row = rows.segmentation(step, 'a', 0, 'a dog')
        if (targets := [label for label in row.labels if label >= 0]) not in answers:
            answers.append(targets)
    starts = sorted({tuple(answer[:place]) for answer in answers for place in range(len(answer))})
    guesses = torch.zeros(len(starts), len(rows.vocabulary.pieces), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([guesses], max_iter=500, line_search_fn='strong_wolfe')

    def loss():
        optimizer.zero_grad()
        value = sum(torch.nn.functional.cross_entropy(
            guesses[[starts.index(tuple(answer[:place])) for place in range(len(answer))]], torch.tensor(answer))
            for answer in answers) / len(answers)
        value.backward()
        return value

    optimizer.step(loss)
    assert len(answers) == 5 and rows.answer_floor() == pytest.approx(loss().item(), abs=1e-4)


def test_a_caption_is_asked_for_as_a_phrase_of_limited_length(rows):
    rows.single_template_steps = 1
    asked, answered = decoded(rows, rows.segmentation(0, 'a', 0, ' A Big  red dog.'))
    assert asked == '<|user|>\n<img>*</img>\nPlease segment a big red dog in this image.<|end|>\n<|assistant|>\n'
    assert answered == 'It is [SEG].<|end|>'
    cut, _ = decoded(rows, rows.segmentation(0, 'a', 0, 'a big red dog', max_caption_len=2))
    assert rows.vocabulary.decode(rows.vocabulary.encode('a big red dog')[:2]) + ' in this image.' in cut
    assert decoded(rows, rows.monitored(3, 'A big red dog.'))[0] == asked and rows.monitored(3, 'it').image == 3


def test_embeddings_stand_where_the_text_would(rows):
    soft = torch.randn(3, 32)
    row = rows.segmentation(9, 'a', 1, soft, max_caption_len=1)
    assert row.soft is soft and row.image == 1 and row.labels[row.slot:row.slot + 3] == [-100] * 3
    before = rows.vocabulary.decode(row.input_ids[:row.slot])
    question, _ = rows.templates(9, 'a')
    assert before.endswith(question.split('{')[0].rstrip())


def test_a_description_repeats_the_region(rows):
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[1, 2:] = True
    row = rows.description(2, region, 'A dog.')
    asked, answered = decoded(rows, row)
    assert 'region1<vp><IMG_CONTEXT><IMG_CONTEXT></vp>.' in asked and answered == 'A dog.<|end|>'
    assert torch.equal(row.region, region.flatten()) and row.image == 2
    assert prompts.CAPTION_QUESTION in asked
    short, phrase = decoded(rows, rows.description(2, region, 'a dog', short=True))
    assert short == asked.replace(prompts.CAPTION_QUESTION, prompts.SHORT_CAPTION_QUESTION)
    assert phrase == 'a dog<|end|>'
