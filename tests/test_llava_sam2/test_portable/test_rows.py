"""Rows of the two tasks, and what the network reads of them when they are padded."""

import pytest
import torch

from llava_sam2.portable import prompts
from llava_sam2.portable.rows import caption_row, segmentation_row, soft_segmentation_row
from llava_sam2.portable.sequences import IGNORE
from llava_sam2.portable.templates import PHI3_CHAT

QUESTION, ANSWER = prompts.EVALUATION_QUESTION, prompts.SEGMENTATION_ANSWERS[0]


@pytest.fixture(scope='module')
def model(build_base):
    return build_base().eval()


@pytest.fixture(scope='module')
def images(model, make_batch):
    batch = make_batch(dict(key=1), dict(key=2))
    return model.encode(batch['pixel_values'], batch['g_pixel_values'])


@pytest.fixture(scope='module')
def soft():
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def rows(vocabulary, soft):
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[1:3, 2] = True
    return [
        segmentation_row(vocabulary, 16, 0, 'a red dog', QUESTION, ANSWER),
        soft_segmentation_row(vocabulary, 16, 1, soft, QUESTION, ANSWER),
        caption_row(vocabulary, 16, 1, region, 'A red dog, that is large and sits on a green mat.'),
        caption_row(vocabulary, 16, 0, region.T, vocabulary.encode('a dog')),
    ]


def supervised(row):
    return [label for label in row.labels if label != IGNORE]


def test_segmentation_row_is_prompt_and_supervised_answer(vocabulary, rows):
    prompt = prompts.segmentation_prompt(PHI3_CHAT, QUESTION, 16, 'a red dog')
    assert vocabulary.decode(rows[0].input_ids) == prompt + 'It is [SEG].<|end|>'
    assert vocabulary.decode(supervised(rows[0])) == 'It is [SEG].<|end|>'
    assert rows[0].labels[-len(supervised(rows[0])):] == supervised(rows[0])
    bare = segmentation_row(vocabulary, 16, 0, 'a red dog', QUESTION, '')
    assert vocabulary.decode(bare.input_ids) == prompt and supervised(bare) == []


def test_soft_row_differs_from_the_text_row_only_in_its_slot(vocabulary):
    text = segmentation_row(vocabulary, 16, 0, 'dog', QUESTION, ANSWER)
    ids = vocabulary.encode(' dog')
    soft = soft_segmentation_row(vocabulary, 16, 0, torch.zeros(len(ids), 32), QUESTION, ANSWER)
    slot = slice(soft.slot, soft.slot + len(ids))
    assert text.input_ids[slot] == ids and text.labels == soft.labels
    assert soft.input_ids[: slot.start] == text.input_ids[: slot.start]
    assert soft.input_ids[slot.stop :] == text.input_ids[slot.stop :]


def test_caption_row_supervises_caption_and_terminator_and_nothing_else(vocabulary, rows):
    assert vocabulary.decode(supervised(rows[2])).endswith('on a green mat.<|end|>')
    assert vocabulary.decode(rows[2].input_ids).startswith(prompts.caption_prompt(PHI3_CHAT, 16, 2))
    assert supervised(rows[2]) == vocabulary.encode('A red dog, that is large and sits on a green mat.<|end|>')
    assert supervised(rows[3]) == []  # token ids are merely read
    assert rows[3].input_ids[-len(vocabulary.encode('a dog')):] == vocabulary.encode('a dog')


@torch.no_grad()
def test_slot_and_visual_tokens_are_embedded_exactly(model, images, rows, soft):
    features = model.network.mlp1(images.vision)
    for side in ('right', 'left'):
        batch = model.pad(rows, side)
        embeds = model.network.embed(batch, features)
        start = batch.starts[1] + rows[1].slot
        visual, slot = (torch.zeros_like(batch.input_ids, dtype=torch.bool) for _ in range(2))
        visual.view(-1)[batch.visual_places] = slot.view(-1)[batch.slot_places] = True
        assert torch.equal(embeds[1, start : start + 3], soft)
        for index, row in enumerate(rows):
            expected = features[row.image]
            if row.region is not None:
                expected = torch.cat([expected, features[row.image][row.region]])
            assert torch.equal(embeds[index][visual[index]], expected)
        text = batch.attention_mask.bool() & ~visual & ~slot
        assert torch.equal(embeds[text], model.network.token_embeddings()[batch.input_ids[text]])


@torch.no_grad()
@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_row_reads_the_same_alone_and_in_a_batch(model, images, rows, side):
    features = model.network.mlp1(images.vision)
    batch = model.pad(rows, side)
    assert len({len(row.input_ids) for row in rows}) > 2
    together = model.network.hidden_states(batch, features)
    for index, row in enumerate(rows):
        alone = model.network.hidden_states(model.pad([row]), features)[0]
        mine = together[index][batch.attention_mask[index].bool()]
        torch.testing.assert_close(mine, alone, rtol=0, atol=1e-5)
        logits = model.network.logits(mine)
        torch.testing.assert_close(logits, model.network.logits(alone), rtol=0, atol=1e-5)


@torch.no_grad()
def test_losses_and_masks_of_a_row_are_the_same_alone_and_in_a_batch(model, images, rows):
    batch, states = model.read_rows(rows[:3], images)
    losses = model.token_loss(batch, states)
    masks = model.segment(rows[:2], states, images)
    for index, row in enumerate(rows[:3]):
        one, state = model.read_rows([row], images)
        torch.testing.assert_close(losses[index], model.token_loss(one, state)[0], rtol=0, atol=1e-5)
        if index < 2:
            torch.testing.assert_close(masks[index], model.segment([row], state, images)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_token_loss_is_the_mean_of_the_shifted_cross_entropy(model, images, rows):
    batch, states = model.read_rows(rows[2:3], images)
    logprobs = model.network.logits(states[0]).log_softmax(dim=-1)
    ids = rows[2].input_ids
    count = len(supervised(rows[2]))
    expected = -sum(logprobs[i - 1, ids[i]] for i in range(len(ids) - count, len(ids))) / count
    torch.testing.assert_close(model.token_loss(batch, states)[0], expected)


def test_a_segmentation_row_without_seg_is_refused(model, images, rows):
    batch, states = model.read_rows([rows[2]], images)
    with pytest.raises(ValueError, match=r'exactly one supervised \[SEG\]'):
        model.segment(batch.rows, states, images)
