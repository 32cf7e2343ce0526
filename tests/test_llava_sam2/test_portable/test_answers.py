"""Answers and the embeddings of their ``[SEG]`` tokens; generated ones are compared in test_chat and test_predictor."""

import pytest
import torch

from llava_sam2.portable.answers import answer_rows
from llava_sam2.portable.rows import chat_row


@pytest.fixture(scope='module')
def model(build_base):
    return build_base().eval()


@pytest.fixture(scope='module')
def rows(vocabulary):
    texts = ('<|user|>\nWho?<|end|>\n<|assistant|>\n', '<|user|>\nWhere is the big red dog?<|end|>\n<|assistant|>\n')
    return [chat_row(vocabulary, text) for text in texts]


@torch.no_grad()
@pytest.mark.parametrize('forced', ['Sure, [SEG].', 'It is [SEG], and [SEG] too', 'No mask.'])
def test_a_given_answer_is_read_as_in_training(model, vocabulary, rows, forced):
    """One row at a time and without padding: the state at each ``[SEG]`` itself, and not one before or after it."""
    network = model.network
    found = answer_rows(network, vocabulary, rows, torch.zeros(0, 16, 32), 8, forced=forced)
    for row, each in zip(rows, found, strict=True):
        ids = row.input_ids + vocabulary.tokenizer.encode(forced, add_special_tokens=False)
        embeds = network.token_embeddings()[torch.tensor(ids)]
        states = network.language_model.model(inputs_embeds=embeds[None]).last_hidden_state[0]
        places = [place for place, index in enumerate(ids) if index == vocabulary.seg_id]
        assert len(places) == forced.count('[SEG]')
        torch.testing.assert_close(each.seg_embeds, network.text_hidden_fcs(states[places]), rtol=1e-4, atol=1e-5)
        assert each.text == forced and each.ended


@torch.no_grad()
def test_a_row_answers_alone_what_it_answers_in_a_batch(model, vocabulary, rows):
    together = answer_rows(model.network, vocabulary, rows, torch.zeros(0, 16, 32), 6)
    for row, each in zip(rows, together):
        [alone] = answer_rows(model.network, vocabulary, [row], torch.zeros(0, 16, 32), 6)
        assert (each.ids, each.text, each.ended) == (alone.ids, alone.text, alone.ended) and len(each.ids) <= 6
        torch.testing.assert_close(each.seg_embeds, alone.seg_embeds, rtol=1e-4, atol=1e-5)


def test_no_answer_contains_an_image_token_or_an_unused_row(model, vocabulary, rows, monkeypatch):
    def logits(states):
        wished = torch.zeros(len(states), 640)
        wished[:, [vocabulary.image_id, 639]] = 9.0
        wished[:, vocabulary.encode(' d')[0]] = 1.0
        return wished

    monkeypatch.setattr(model.network, 'logits', logits)
    found = answer_rows(model.network, vocabulary, rows, torch.zeros(0, 16, 32), 3)
    assert [each.text for each in found] == ['d d d'] * 2 and not any(each.ended for each in found)
