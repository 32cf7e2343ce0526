import math
import shutil
import subprocess
from collections import Counter
from statistics import mean

import pytest

from dual_loop.evaluation import caption_scores
from dual_loop.evaluation.caption_scores import (
    JavaError,
    MissingScores,
    check_scores,
    plain_words,
    ptb_words,
    score_captions,
)

needs_java = pytest.mark.skipif(shutil.which('java') is None, reason='there is no java on PATH')
CAPTIONS = ['a red cat on the mat', 'the dog', 'the the the dog runs', 'a man with a red hat and a red bag']
REFERENCES = [['the red cat', 'a red cat is on the blue mat'], ['the dog'], ['a dog runs', 'the dog runs', 'brown dog'],
              ['man in a red hat', 'the man with the red bag and a hat']]


def slow_cider_d(captions, references):
    """CIDEr-D of each caption, from its definition (Vedantam et al. 2015): n = 1 .. 4, sigma = 6."""
    def grams(sentence, n):
        words = sentence.split()
        return Counter(tuple(words[start:start + n]) for start in range(len(words) - n + 1))

    def weights(sentence, n):
        return {gram: count * math.log(len(captions) / max(1, sum(
            any(gram in grams(each, n) for each in about) for about in references)))
            for gram, count in grams(sentence, n).items()}

    def similarity(said, given, n):
        one, two = weights(said, n), weights(given, n)
        norms = math.hypot(*one.values()) * math.hypot(*two.values())
        clipped = sum(min(value, two[gram]) * two[gram] for gram, value in one.items() if gram in two)
        return clipped / norms if norms else 0.0

    def penalty(said, given):
        return math.exp(-(len(said.split()) - len(given.split())) ** 2 / (2 * 6 ** 2))

    return [10 * mean(similarity(said, given, n) * penalty(said, given) for given in about for n in (1, 2, 3, 4))
            for said, about in zip(captions, references)]


def test_cider_is_that_of_its_definition():
    scores = score_captions(CAPTIONS, REFERENCES, 'plain')
    expected = slow_cider_d(CAPTIONS, REFERENCES)
    assert [each['cider'] for each in scores.samples] == pytest.approx(expected, rel=1e-9)
    assert scores.metrics['cider'] == pytest.approx(mean(expected), rel=1e-9)
    assert len(set(expected)) == 4 and min(expected) > 0.1


def test_cider_of_identical_sentences_is_10_and_they_have_bleu_1():
    captions = ['a red cat on the mat', 'two dogs run in tall grass', 'some man holds his old hat']
    scores = score_captions(captions, [[caption] for caption in captions], 'plain')
    assert scores.metrics == pytest.approx(dict(cider=10, bleu1=1, bleu2=1, bleu3=1, bleu4=1), rel=1e-6)
    assert [each['bleu4'] for each in scores.samples] == pytest.approx([1] * 3, rel=1e-6)


def test_bleu_is_that_of_its_definition():
    """6 of 7 words, 5 of 6 pairs, 4 of 5 and 3 of 4; 7 words where the nearest reference has 9."""
    said, given = 'a big red dog runs fast today', 'a big red dog runs fast on the street'
    scores = score_captions([said], [[given, 'dog']], 'plain')
    expected = {f'bleu{n}': math.prod((7 - k) / (8 - k) for k in range(1, n + 1)) ** (1 / n) * math.exp(1 - 9 / 7)
                for n in (1, 2, 3, 4)}
    assert {name: scores.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert scores.samples[0]['bleu4'] == pytest.approx(expected['bleu4'], rel=1e-6)


def test_what_a_model_adds_to_a_caption_does_not_count():
    plain = score_captions(['a red cat on the mat', 'the dog'], REFERENCES[:2], 'plain')
    added = score_captions(['Region1: <p>A red\ncat</p> on the |||\x00\u2028mat [SEG].', 'region1 The dog!'],
                           REFERENCES[:2], 'plain')
    assert added == plain


def test_an_empty_caption_scores_nothing():
    scores = score_captions(['', '...', 'the dog'], [['a cat'], ['the hat'], ['the dog']], 'plain')
    for each in scores.samples[:2]:
        assert each == dict(cider=0, bleu4=pytest.approx(0, abs=1e-8))
    assert scores.samples[2]['cider'] > 4


def test_plain_words_are_without_case_and_punctuation():
    sentences = ["The man's T-shirt: \"don't\", he can't; 50.5 % -- café…", '', ' \n.']
    assert plain_words(sentences) == ["the man 's t-shirt do n't he ca n't 50.5 % café …", '', '']


@pytest.mark.parametrize('captions, references, message', [
    ([], [], 'must be a caption'), (['a'], [[]], 'at least one'), (['a', 'b'], [['a']], 'at least one'),
    (['a'], [['?']], 'no reference has a word'),
])
def test_what_cannot_be_scored_is_refused(captions, references, message):
    with pytest.raises(ValueError, match=message):
        score_captions(captions, references, 'plain')


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(caption_scores, 'find_spec', lambda name: None)
    with pytest.raises(MissingScores, match='pip install pycocoevalcap'):
        check_scores()


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Puts a program of the given lines in the place of Java."""
    def install(*lines):
        (tmp_path / 'java').write_text('\n'.join(['#!/bin/sh', *lines]))
        (tmp_path / 'java').chmod(0o755)
        monkeypatch.setenv('PATH', str(tmp_path), prepend=':')

    return install


def test_java_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(JavaError, match='no java on PATH'):
        check_scores()


@pytest.mark.parametrize('lines, message', [
    (['echo Could not reserve enough space >&2', 'exit 1'], 'status 1.*Could not reserve'),
    (['exit 0'], "makes .'.* of 'A check.'"),
    (['echo a check; echo .'], '2 lines in place of 1'),
])
def test_java_that_does_not_work_is_named(fake_java, lines, message):
    fake_java(*lines)
    with pytest.raises(JavaError, match=message):
        check_scores()


def test_java_that_hangs_is_ended(fake_java, monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    fake_java('exec sleep 600')
    monkeypatch.setattr(subprocess, 'Popen', Process)
    monkeypatch.setattr(caption_scores, '_FIRST_ANSWER', 0.1)
    with pytest.raises(JavaError, match='timed out'):
        check_scores()
    assert len(started) == 1 and started[0].returncode is not None  # waited for as well, so that none is left behind


@pytest.fixture
def foreign_machine(monkeypatch):
    """Decimal commas and no letters beyond ASCII."""
    monkeypatch.setenv('JAVA_TOOL_OPTIONS', '-Duser.language=de -Duser.country=DE -Dfile.encoding=US-ASCII')
    monkeypatch.setenv('LC_ALL', 'C')


@needs_java
def test_the_treebank_tokenizer_gives_a_line_for_each_sentence(foreign_machine):
    sentences = ["A man's café (3.5 m), don't!", '', 'two\nlines\x85and\u2028more\x0b', '日本 ||| x', '']
    assert ptb_words(sentences) == ["a man 's café -lrb- 3.5 m -rrb- do n't", '', 'two lines and more', '日本 x', '']


@needs_java
def test_plain_words_are_mostly_those_of_the_treebank():
    sentences = ["The man's T-shirt, which doesn't fit.", 'a dog -- brown; sitting: "left"?', 'boy #12 & a 2.5 m pole']
    assert plain_words(sentences) == ptb_words(sentences)


@needs_java
@pytest.mark.full
def test_meteor_bears_any_caption_on_any_machine(foreign_machine):
    captions = ['', 'a cat ||| on\na mat', 'the dog', '?', 'é']
    references = [['the cat'], ['a cat on a mat'], ['a hat', 'the dog'], ['...'], ['ß']]
    scores = score_captions(captions, references)
    assert [each['meteor'] for each in scores.samples] == [0, 1, 1, 0, 0]
    assert 0 < scores.metrics['meteor'] < 1
    assert scores.tokenizer == 'ptb' and scores.metrics['cider'] > 0


@needs_java
@pytest.mark.full
def test_scores_are_those_of_the_wrappers_of_the_package():
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = [*CAPTIONS, 'A woman, wearing a café apron.']
    references = [*REFERENCES, ["The lady's apron", 'woman who wears an apron (white)']]
    said = PTBTokenizer().tokenize({n: [dict(caption=each)] for n, each in enumerate(captions)})
    given = PTBTokenizer().tokenize({n: [dict(caption=each) for each in about] for n, about in enumerate(references)})
    whole, each = Meteor().compute_score(given, said)
    scores = score_captions(captions, references)
    assert [sample['meteor'] for sample in scores.samples] == each
    assert scores.metrics['meteor'] == whole
    words = ptb_words([*captions, *(sentence for about in references for sentence in about)])
    assert words == [*(said[n][0] for n in said), *(sentence for n in given for sentence in given[n])]
