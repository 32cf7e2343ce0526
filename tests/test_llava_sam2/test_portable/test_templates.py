"""The markup of a dialogue, written out, and a template of another kind."""

import pytest

from llava_sam2.portable.templates import PHI3_CHAT, ChatTemplate, template_of
from llava_sam2.portable.vocabulary import Vocabulary

#: Ends an answer with a special token.
OTHER = ChatTemplate(
    name='other', instruction='<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n',
    terminator='<|im_end|>', terminator_is_token=True)


def test_turns_of_the_released_models():
    assert PHI3_CHAT.ask('Hi.') == '<|user|>\nHi.<|end|>\n<|assistant|>\n'
    assert PHI3_CHAT.ended('It is [SEG].') == 'It is [SEG].<|end|>'
    assert PHI3_CHAT.turn('Hi.', 'Hello.') == '<|user|>\nHi.<|end|>\n<|assistant|>\nHello.<|end|>\n'
    assert PHI3_CHAT.before_end('a dog<|end|>\n<|user|>') == 'a dog' and PHI3_CHAT.before_end('a dog') == 'a dog'


def test_a_name_that_there_is_not_is_refused():
    assert template_of('phi3_chat') is PHI3_CHAT
    with pytest.raises(ValueError, match='phi4_chat.*phi3_chat'):
        template_of('phi4_chat')


def test_a_terminator_that_is_a_token_ends_a_caption_and_is_never_in_one(vocabulary):
    other = Vocabulary(vocabulary.tokenizer, vocabulary.size, OTHER)
    words, end = other.encode('a red dog.'), other.encode('<|im_end|>')
    assert len(end) == 1 and other.not_in_caption[end].all() and not other.not_in_caption[words].any()
    assert other.caption_length(words + end) == len(words) and other.caption_length(words) is None
    assert not other.may_be_ending(words)
    # The text of the other template's terminator is text like any other here.
    assert other.caption_length(other.encode('a dog<|end|>')) is None
