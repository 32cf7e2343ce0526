"""Tables over the tokenizer, against decoding the tokens one by one."""

import json

import pytest
import torch
from transformers import AddedToken, Qwen2Tokenizer

from llava_sam2.portable import prompts
from llava_sam2.portable.templates import PHI3_CHAT, QWEN_CHAT, ChatTemplate
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.tokenizer import load_tokenizer, train_tokenizer


def tokens_of(vocabulary, *pieces: str) -> list[int]:
    return [vocabulary.pieces.index(piece.encode()) for piece in pieces]


@pytest.mark.parametrize('text', [
    'a dog.',
    'no image at all<|end|>',
    prompts.image_block(7),
    prompts.caption_prompt(PHI3_CHAT, 16, 3) + 'a red dog.<|end|>',
    prompts.image_block(2) + 'x' + prompts.image_block(5) + ' <vp><IMG_CONTEXT></vp>[SEG]',
    '',
])
def test_encode_is_the_tokenizers_own(vocabulary, text):
    assert vocabulary.encode(text) == vocabulary.tokenizer.encode(text, add_special_tokens=False)


def test_decode_inverts_encode(vocabulary):
    text = 'A café  with [SEG] , spaces .<|end|>'
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_terminator_is_found_where_it_begins(vocabulary):
    full = vocabulary.encode('a dog.<|end|>')
    fused = vocabulary.pieces[full[-3]]
    assert fused == b'.<|'  # as in the released tokenizer, the stop and the terminator share a token
    assert vocabulary.caption_length(full) == len(full) - 3
    assert vocabulary.caption_length(full[:-1]) is None
    assert vocabulary.caption_length(full + vocabulary.encode(' more<|end|>')) == len(full) - 3
    assert vocabulary.caption_length(tokens_of(vocabulary, 'a', '<|', 'e', 'n', 'd', '|', '>')) == 1
    assert vocabulary.caption_length([]) is None


@pytest.fixture(scope='module')
def of_turns(vocabulary):
    """The same tokenizer under a template whose terminator is one of its special tokens."""
    return Vocabulary(vocabulary.tokenizer, vocabulary.size, QWEN_CHAT)


def test_a_terminator_that_is_a_token(of_turns):
    end = of_turns.tokenizer.convert_tokens_to_ids('<|im_end|>')
    full = of_turns.encode(of_turns.template.ended('a dog.'))
    assert full[-1] == end and of_turns.caption_length(full) == len(full) - 1
    assert of_turns.caption_length(full + of_turns.encode(' more') + [end]) == len(full) - 1
    assert of_turns.caption_length(full[:-1]) is None and of_turns.caption_length([]) is None
    assert of_turns.caption_length(of_turns.encode('a dog.<|end|>')) is None
    assert not any(of_turns.may_be_ending(full[:n]) for n in range(len(full) + 1))
    assert torch.equal(of_turns.not_in_caption, of_turns.special)  # no ordinary token holds a part of it
    assert of_turns.special[end] and of_turns.cannot_begin[end] and not of_turns.cannot_continue[end]
    assert int(of_turns.special.sum() - of_turns.cannot_continue.sum()) == 1
    assert of_turns.stop_ids == {end, of_turns.tokenizer.convert_tokens_to_ids('<|endoftext|>')}
    assert of_turns.num_terminator_tokens == 1


def test_generated_captions_hold_no_special_token(vocabulary):
    assert torch.equal(vocabulary.cannot_continue, vocabulary.special)
    assert vocabulary.stop_ids == {vocabulary.tokenizer.eos_token_id}
    assert vocabulary.num_terminator_tokens == len(vocabulary.encode('.<|end|>'))


def test_a_terminator_that_the_tokenizer_does_not_know_is_refused(vocabulary):
    template = ChatTemplate('turns', '{input}<|end|>', '<|end|>', terminator_is_token=True)
    with pytest.raises(ValueError, match=r"has no special token <\|end\|>, by which template='turns' ends"):
        Vocabulary(vocabulary.tokenizer, vocabulary.size, template)


def test_may_be_ending(vocabulary):
    full = vocabulary.encode('a dog.<|end|>')
    assert [vocabulary.may_be_ending(full[:n]) for n in range(len(full) + 1)] == (
        [False] * (len(full) - 2) + [True, True, False]
    )
    assert vocabulary.may_be_ending(tokens_of(vocabulary, 'a', '<'))
    assert vocabulary.may_be_ending(tokens_of(vocabulary, '<', '|', 'e', 'n'))
    assert not vocabulary.may_be_ending(tokens_of(vocabulary, '|', 'e', 'n'))
    assert not vocabulary.may_be_ending([])


def test_special_tokens(vocabulary):
    names = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<img>', '</img>', '<IMG_CONTEXT>',
             '[SEG]', '<p>', '</p>', '<vp>', '</vp>']
    reserved = range(len(vocabulary.tokenizer), vocabulary.size)
    expected = {vocabulary.id_of(name) for name in names} | set(reserved)
    assert set(vocabulary.special.nonzero()[:, 0].tolist()) == expected


def test_what_a_caption_may_contain_and_begin_with(vocabulary):
    for index in range(vocabulary.size):
        text = '' if vocabulary.special[index] else vocabulary.pieces[index].decode('latin-1')
        ends = any(text.endswith('<|end|>'[:n]) for n in range(1, 8))
        banned = bool(vocabulary.special[index]) or ends or '<|end|>' in text
        assert vocabulary.not_in_caption[index] == banned, (index, text)
        assert (index in vocabulary.ordinary_ids) == (not banned)
        assert vocabulary.cannot_begin[index] == (banned or not text.strip(' \t\n\v\f\r')), (index, text)
    assert not vocabulary.cannot_begin[tokens_of(vocabulary, 'a', ' d', '.', '|')].any()
    assert vocabulary.not_in_caption[tokens_of(vocabulary, '<', '<|', '.<|')].all()
    assert vocabulary.cannot_begin[tokens_of(vocabulary, ' ', '\n')].all()


def test_leading_space_table(vocabulary):
    table = vocabulary.with_leading_space
    plain = tokens_of(vocabulary, 'd', 'o')
    assert [vocabulary.decode([index]) for index in table[plain].tolist()] == [' d', ' o']
    spaced = (table != torch.arange(vocabulary.size)).nonzero()[:, 0].tolist()
    assert len(spaced) > 20
    for index in spaced:
        assert vocabulary.pieces[table[index]] == b' ' + vocabulary.pieces[index]
    known = set(vocabulary.pieces)
    for index in set((~vocabulary.special).nonzero()[:, 0].tolist()) - set(spaced):
        assert b' ' + vocabulary.pieces[index] not in known
    assert torch.equal(table[vocabulary.special], vocabulary.special.nonzero()[:, 0])


def test_missing_protocol_token_is_named():
    tokenizer = train_tokenizer(['a dog'], 280)
    bare = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer.from_str(
            tokenizer.backend_tokenizer.to_str().replace('[SEG]', '[GES]')
        ),
        pad_token='<|endoftext|>',
    )
    assert Vocabulary(tokenizer, 300, PHI3_CHAT).seg_id == tokenizer.convert_tokens_to_ids('[SEG]')
    with pytest.raises(ValueError, match=r'does not know \[SEG\] as one token.*ADDED_TOKENS'):
        Vocabulary(bare, 300, PHI3_CHAT)


def test_too_few_rows_are_refused(vocabulary):
    with pytest.raises(ValueError, match='100 token rows but the tokenizer has 640'):
        Vocabulary(vocabulary.tokenizer, 100, PHI3_CHAT)


def test_missing_tokenizer_names_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def test_a_slow_tokenizer_gives_the_same_tokens(vocabulary, checkout, tmp_path):
    """Published examples load with ``use_fast=False``."""
    backend = json.loads((checkout / 'assets' / 'tiny' / 'tokenizer.json').read_text())
    (tmp_path / 'vocab.json').write_text(json.dumps(backend['model']['vocab']))
    (tmp_path / 'merges.txt').write_text('\n'.join(' '.join(pair) for pair in backend['model']['merges']))
    slow = Qwen2Tokenizer(tmp_path / 'vocab.json', tmp_path / 'merges.txt', unk_token=None)
    slow.add_tokens([AddedToken(each['content'], normalized=False, special=True) for each in backend['added_tokens']],
                    special_tokens=True)
    assert not slow.is_fast
    text = prompts.caption_prompt(PHI3_CHAT, 16, 3) + 'a red dog, 2 cats.<|end|>[SEG]'
    table = Vocabulary(slow, 640, PHI3_CHAT)
    assert table.encode(text) == vocabulary.encode(text)
    assert table.decode(table.encode(text)) == text and torch.equal(table.special, vocabulary.special)


def test_a_text_is_read_once_and_what_is_remembered_is_nobodys(vocabulary, monkeypatch):
    vocabulary = Vocabulary(vocabulary.tokenizer, vocabulary.size, PHI3_CHAT)
    asked = [prompts.caption_prompt(PHI3_CHAT, 16, count) for count in (3, 5)]  # but for the run they are alike
    expected = [vocabulary.tokenizer.encode(text, add_special_tokens=False) for text in (*asked, 'a dog.')]
    vocabulary.encode(asked[0]).append(7)
    vocabulary.encode('a dog.').append(7)
    monkeypatch.setattr(Vocabulary, 'tokenizer', None, raising=False)
    monkeypatch.delattr(vocabulary, 'tokenizer')
    assert [vocabulary.encode(text) for text in (*asked, 'a dog.')] == expected


def test_the_oldest_texts_are_forgotten(vocabulary, monkeypatch):
    monkeypatch.setattr('llava_sam2.portable.vocabulary.REMEMBERED_TEXTS', 3)
    vocabulary = Vocabulary(vocabulary.tokenizer, vocabulary.size, PHI3_CHAT)
    texts = [f'{number} dogs' for number in range(8)]
    for text in texts + texts:
        assert vocabulary.encode(text) == vocabulary.tokenizer.encode(text, add_special_tokens=False)
    assert len(vocabulary._read) == 3
