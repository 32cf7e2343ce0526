"""The tokenizer of the tiny model, made anew."""

import importlib.util
import sys

import pytest

from dual_loop.demo.wording import WORDS
from llava_sam2.tokenizer import load_tokenizer, train_tokenizer


@pytest.fixture(scope='module')
def tool(checkout):
    spec = importlib.util.spec_from_file_location('make_tiny_tokenizer', checkout / 'tools' / 'make_tiny_tokenizer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_has_each_caption_in_every_prompt(tool):
    texts = tool.protocol_corpus(['A Dog.', 'it'])
    assert len(texts) == 8
    assert 'segment the a dog in this image?' in texts[0] and texts[2] == 'A Dog.<|end|>'
    assert texts[3] == 'It is [SEG].<|end|>' and texts[7] == 'Sure, [SEG].<|end|>'


def test_writes_a_tokenizer_that_knows_the_protocol(tool, tmp_path, monkeypatch, capsys):
    arguments = ['make_tiny_tokenizer.py', str(tmp_path / 'out'), '--captions', '40', '--vocab-size', '320']
    monkeypatch.setattr(sys, 'argv', arguments)
    tool.main()
    tokenizer = load_tokenizer(tmp_path / 'out')
    assert len(tokenizer) <= 320 and f'{len(tokenizer)} tokens' in capsys.readouterr().out
    for token in ('<IMG_CONTEXT>', '[SEG]', '<p>', '</p>', '<vp>', '</vp>'):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1


def test_every_word_of_both_worlds_is_one_token(tool):
    """Also inside a caption of world A alone: a name is as long as any other, whichever world it belongs to."""
    tokenizer = train_tokenizer(tool.protocol_corpus(tool.demo_corpus(seed=0, n=4000)), 640)
    assert len(tokenizer) == 640 and len(WORDS) == 84
    assert [word for word in WORDS if len(tokenizer.encode(f' {word}', add_special_tokens=False)) > 1] == []
