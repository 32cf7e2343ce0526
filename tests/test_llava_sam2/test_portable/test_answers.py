"""Answers and the embeddings of their ``[SEG]`` tokens; generated ones are compared in test_chat and test_predictor."""

from functools import partial

import pytest
import torch

from llava_sam2.portable.answers import answer_rows
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.rows import chat_row
from llava_sam2.portable.static_decoding import KeptDecoder, StaticDecoder
from llava_sam2.portable.vocabulary import Vocabulary


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
    vocabulary = Vocabulary(vocabulary.tokenizer, 648, vocabulary.template)

    def logits(states):
        wished = torch.zeros(len(states), 648)
        wished[:, [vocabulary.image_id, 647]] = 9.0
        wished[:, vocabulary.encode(' d')[0]] = 1.0
        return wished

    monkeypatch.setattr(model.network, 'logits', logits)
    for decoder in (None, StaticDecoder(model.network, vocabulary, states=True)):
        found = answer_rows(model.network, vocabulary, rows, torch.zeros(0, 16, 32), 3, decoder=decoder)
        assert [each.text for each in found] == ['d d d'] * 2 and not any(each.ended for each in found)


# -- by a static decoder ----------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def talkative(build_base):
    """Says [SEG] now and then, several times in an answer, and ends some answers."""
    model = build_base(lora=None).eval()
    with torch.no_grad():
        head = model.network.language_model.lm_head.weight
        head[model.vocabulary.seg_id] = head[[5, 37, 411, 88]].sum(dim=0)
        head[model.vocabulary.tokenizer.eos_token_id] = head[[120, 300, 17]].sum(dim=0)
    return model


@pytest.fixture(scope='module')
def questions(vocabulary):
    """16 on pictures of one and three tiles and of five frames, on regions, and as mere text; two rows are alike."""
    block, asked = '<img>' + '<IMG_CONTEXT>' * 16 + '</img>', []
    for number in range(16):
        images = ([0], [1, 2, 3], [4, 5, 6, 7, 8], [])[number % 4 if number < 14 else 0]
        regions = torch.arange(32).view(2, 4, 4) % 16 < number if number % 5 == 1 and images else None
        said = '' if regions is None else '<vp>' + '<IMG_CONTEXT>' * int(regions.sum()) + '</vp>'
        text = f'{block * len(images)}{said} ' + 'Where is the cup, ' * (number % 3) + 'please?'
        asked.append(chat_row(vocabulary, f'<|user|>\n{text}<|end|>\n<|assistant|>\n', images, regions))
    return asked


@pytest.fixture(scope='module')
def pictures():
    return torch.randn(9, 16, 32, generator=torch.Generator().manual_seed(5))


def assert_same(static, plain):
    for one, other in zip(static, plain, strict=True):
        assert (one.ids, one.text, one.ended) == (other.ids, other.text, other.ended)
        torch.testing.assert_close(one.seg_embeds, other.seg_embeds, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('limit', [1, 2, 24])
@pytest.mark.parametrize('count', [1, 3, 16])
def test_a_static_decoder_gives_the_same_answers(talkative, vocabulary, questions, pictures, count, limit, monkeypatch):
    ask = partial(answer_rows, talkative.network, vocabulary, questions[:count], pictures, limit)
    plain = ask()
    decoder = KeptDecoder().of(talkative.network, vocabulary)
    monkeypatch.setattr('llava_sam2.portable.answers.greedy_decode', None)
    monkeypatch.setattr(Sa2VANetwork, 'hidden_states', None)  # [SEG] costs no pass of its own
    assert_same(ask(decoder=decoder), plain)
    if (count, limit) == (16, 24):
        assert max(len(each.seg_embeds) for each in plain) > 1 and {each.ended for each in plain} == {True, False}
    decoder.store.fill_(float('nan')), decoder.heard.fill_(float('nan'))
    assert_same(ask(decoder=decoder), plain)


def test_an_answer_that_ends_in_seg(talkative, vocabulary, questions, pictures):
    """Its state is read of the token that is said last: the limit cuts behind it."""
    ask = partial(answer_rows, talkative.network, vocabulary, questions, pictures)
    decoder = KeptDecoder().of(talkative.network, vocabulary)
    row, place = next((row, each.ids.index(vocabulary.seg_id)) for row, each in enumerate(ask(24))
                      if vocabulary.seg_id in each.ids)
    plain, static = ask(place + 1), ask(place + 1, decoder=decoder)
    assert plain[row].ids[-1] == vocabulary.seg_id and len(plain[row].seg_embeds) == 1
    assert_same(static, plain)


@pytest.mark.parametrize('limit', [506 - 50, 506, 4000])
def test_answers_that_may_be_longer_than_the_positions(talkative, vocabulary, limit, monkeypatch):
    """Decoded statically if they end in time, else plainly."""
    rows = [chat_row(vocabulary, '<|user|>\nWho?<|end|>\n<|assistant|>\n')]
    ask = partial(answer_rows, talkative.network, vocabulary, rows, torch.zeros(0, 16, 32))
    decoder = StaticDecoder(talkative.network, vocabulary, states=True)
    assert 506 - 50 < decoder.most_new_tokens(rows) < 506
    said = vocabulary.encode('It is [SEG].<|end|>')
    script = iter(said * 2)
    monkeypatch.setattr(decoder, '_next', lambda states, banned: torch.tensor([next(script)]))
    monkeypatch.setattr('llava_sam2.portable.answers.greedy_decode', None)
    [ended] = ask(limit, decoder=decoder)
    assert ended.text == 'It is [SEG].' and len(ended.seg_embeds) == 1


def test_an_answer_that_is_longer_than_the_positions_is_decoded_plainly(talkative, vocabulary, questions, pictures,
                                                                       monkeypatch):
    decoder = StaticDecoder(talkative.network, vocabulary, states=True)
    decoder.positions = max(len(row.input_ids) for row in questions) + vocabulary.num_terminator_tokens + 3
    ask = partial(answer_rows, talkative.network, vocabulary, questions, pictures, 9)
    plain = ask()
    assert not all(each.ended for each in plain)
    assert_same(ask(decoder=decoder), plain)
    decoder.positions = 20  # not even the prompt
    monkeypatch.setattr(decoder, 'decode', None)
    assert_same(ask(decoder=decoder), plain)
