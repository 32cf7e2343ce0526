"""The markup of a dialogue, written out."""

import pytest

from llava_sam2.portable.templates import PHI3_CHAT, QWEN_CHAT, TEMPLATES, template_of
from llava_sam2.portable.vocabulary import Vocabulary


def test_turns_of_the_released_models():
    assert QWEN_CHAT.ask('Hi.') == '<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n'
    assert QWEN_CHAT.ended('It is [SEG].') == 'It is [SEG].<|im_end|>'
    assert QWEN_CHAT.turn('Hi.', 'Hello.') == (
        '<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n')
    assert QWEN_CHAT.before_end('a dog<|im_end|>\n<|im_start|>') == 'a dog'
    assert QWEN_CHAT.stop_tokens == ('<|endoftext|>', ) and PHI3_CHAT.stop_tokens == ()
    assert PHI3_CHAT.ask('Hi.') == '<|user|>\nHi.<|end|>\n<|assistant|>\n'
    assert PHI3_CHAT.ended('It is [SEG].') == 'It is [SEG].<|end|>'
    assert PHI3_CHAT.turn('Hi.', 'Hello.') == '<|user|>\nHi.<|end|>\n<|assistant|>\nHello.<|end|>\n'
    assert PHI3_CHAT.before_end('a dog<|end|>\n<|user|>') == 'a dog' and PHI3_CHAT.before_end('a dog') == 'a dog'


def test_a_name_that_there_is_not_is_refused():
    assert template_of('phi3_chat') is PHI3_CHAT and template_of('qwen_chat') is QWEN_CHAT
    assert set(TEMPLATES) == {'phi3_chat', 'qwen_chat'}
    with pytest.raises(ValueError, match='phi4_chat.*phi3_chat'):
        template_of('phi4_chat')


def test_a_terminator_that_is_a_token_ends_a_caption_and_is_never_in_one(vocabulary):
    other = Vocabulary(vocabulary.tokenizer, vocabulary.size, QWEN_CHAT)
    words, end = other.encode('a red dog.'), other.encode('<|im_end|>')
    assert len(end) == 1 and other.not_in_caption[end].all() and not other.not_in_caption[words].any()
    assert other.caption_length(words + end) == len(words) and other.caption_length(words) is None
    assert not other.may_be_ending(words)
    # The text of the other template's terminator is text like any other here.
    assert other.caption_length(other.encode('a dog<|end|>')) is None
