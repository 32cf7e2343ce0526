import pytest

from dual_loop.demo import demo_corpus
from llava_sam2.portable import prompts
from llava_sam2.portable.templates import PHI3_CHAT
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.tokenizer import build_tokenizer, load_tokenizer, stand_in_tokenizer, train_tokenizer


def test_the_shipped_tokenizer_knows_the_demo_world(vocabulary):
    texts = demo_corpus(seed=7, n=200)
    ids = [vocabulary.encode(text) for text in texts]
    assert [vocabulary.decode(each) for each in ids] == texts
    words = sum(len(text.replace('.', ' .').split()) for text in texts)
    assert sum(map(len, ids)) < 1.3 * words


def test_training_one_is_reproducible_and_has_the_added_tokens():
    first, second = (train_tokenizer(demo_corpus(seed=1, n=50), 320) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and len(first) <= 320
    for token in ('[SEG]', '<IMG_CONTEXT>', '<p>', '</p>', '<vp>', '</vp>'):
        assert first.encode(f'a{token}b', add_special_tokens=False)[1:-1] == [first.convert_tokens_to_ids(token)]


def test_it_splits_where_the_qwen_tokenizer_splits(vocabulary):
    tokens = vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.encode('a blue star.<|end|>\n'))
    # The final stop fuses with the beginning of the terminator; letters never join punctuation.
    assert tokens[-3:] == ['.<|', 'end', '|>\u010a'] and tokens[:3] == ['a', '\u0120blue', '\u0120star']


@pytest.fixture(scope='module')
def stand_in():
    return Vocabulary(stand_in_tokenizer(), 151679, PHI3_CHAT)


def test_the_stand_in_has_the_released_ids(stand_in):
    assert len(stand_in.tokenizer) == 151679
    released = {'<|endoftext|>': 151643, '<|im_start|>': 151644, '<|im_end|>': 151645, '<img>': 151665,
                '</img>': 151666, '<IMG_CONTEXT>': 151667, '</box>': 151673, '[SEG]': 151674, '<p>': 151675,
                '</p>': 151676, '<vp>': 151677, '</vp>': 151678}
    for token, index in released.items():
        assert stand_in.id_of(token) == index and stand_in.encode(f'a{token}b')[1:-1] == [index]
    assert stand_in.pad_id == 151643 and stand_in.tokenizer.eos_token_id == 151645


def test_the_stand_in_reads_as_the_small_tokenizer(stand_in, vocabulary):
    texts = demo_corpus(seed=7, n=200) + [prompts.caption_prompt(PHI3_CHAT, 2, 1), '<reserved 1000> 1000 .<|end|>']
    moved = {vocabulary.id_of(token): stand_in.id_of(token) for token in vocabulary.tokenizer.get_added_vocab()}
    for text in texts:
        assert stand_in.encode(text) == [moved.get(index, index) for index in vocabulary.encode(text)]
        assert stand_in.decode(stand_in.encode(text)) == text


def test_reserved_tokens_of_the_stand_in_are_never_sampled(stand_in, vocabulary):
    assert stand_in.ordinary_ids.tolist() == vocabulary.ordinary_ids.tolist()
    assert len(stand_in.special) == 151679 and stand_in.special[vocabulary.ordinary_ids.max() + 30 :].all()


def test_a_tokenizer_is_a_folder_or_built_by_a_callable(checkout):
    expected = load_tokenizer(checkout / 'assets/tiny').get_vocab()
    for spec in ('assets/tiny', checkout / 'assets/tiny', dict(type=load_tokenizer, folder='assets/tiny'),
                 dict(type='llava_sam2.tokenizer.load_tokenizer', folder='assets/tiny')):
        assert build_tokenizer(spec).get_vocab() == expected
    with pytest.raises(ValueError, match="type='llava_sam2.portable.prompts.SEG'"):
        build_tokenizer(dict(type='llava_sam2.portable.prompts.SEG'))


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load_tokenizer(tmp_path)
