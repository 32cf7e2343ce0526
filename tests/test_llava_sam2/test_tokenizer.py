import pytest

from dual_loop.demo import demo_corpus
from llava_sam2 import prompts
from llava_sam2.tokenizer import load_tokenizer, train_tokenizer


def test_the_shipped_tokenizer_knows_the_demo_world(vocabulary):
    texts = demo_corpus(seed=7, n=200)
    ids = [vocabulary.encode(text) for text in texts]
    assert [vocabulary.decode(each) for each in ids] == texts
    words = sum(len(text.replace('.', ' .').split()) for text in texts)
    assert sum(map(len, ids)) < 1.3 * words


def test_training_one_is_reproducible_and_has_the_added_tokens():
    first, second = (train_tokenizer(demo_corpus(seed=1, n=50), 320) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and len(first) <= 320
    for token in (prompts.SEG, prompts.IMG_CONTEXT, prompts.REGION_START):
        assert first.encode(f'a{token}b', add_special_tokens=False)[1:-1] == [first.convert_tokens_to_ids(token)]


def test_it_splits_where_the_qwen_tokenizer_splits(vocabulary):
    tokens = vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.encode('a blue star.<|end|>\n'))
    # The final stop fuses with the beginning of the terminator; letters never join punctuation.
    assert tokens[-3:] == ['.<|', 'end', '|>\u010a'] and tokens[:3] == ['a', '\u0120blue', '\u0120star']


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load_tokenizer(tmp_path)
