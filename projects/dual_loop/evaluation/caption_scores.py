"""Scores of captions against human sentences, by pycocoevalcap: CIDEr, METEOR and BLEU-1 to BLEU-4.

What pycocoevalcap calls CIDEr is CIDEr-D: n-grams up to 4, counts clipped by the reference's, a Gaussian penalty on the
difference in length (sigma 6), times 10. Rare n-grams weigh more, and what is rare is counted over the references of
all captions scored together: the figure of a part of a data set is on another scale than that of the whole.

METEOR and the Penn Treebank tokenizer are Java programs inside pycocoevalcap. They are started here rather than by its
wrappers, which wait for ever on a program that has died, write into the installed package, and fail where numbers have
a decimal comma. Where Java does not run, METEOR is left out, and CIDEr and BLEU take words from a plain tokenizer.
"""

import importlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

#: Which words are counted: those of the Penn Treebank tokenizer, or of :func:`plain_words`.
TOKENIZERS = ('ptb', 'plain')
# METEOR reads numbers as the machine's language writes them, but writes them with a decimal point. Both programs take
# and give UTF-8 anywhere.
_JAVA = ('java', '-Duser.language=en', '-Duser.country=US')
_FIRST_ANSWER = 300  # seconds in which Java has to answer at all
_LAST_ANSWER = 3600  # seconds for all captions
_MARKUP = re.compile(r'<[^<>]*>|\[SEG\]|\bregion1\b', re.IGNORECASE)
# What ends a line somewhere, other control characters, and METEOR's separator.
_UNSPEAKABLE = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]|\\|{3,}')
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b")
_PLAIN_WORD = re.compile(r"n't\b|'(?:s|m|d|re|ve|ll)\b|\w+(?:[-./]\w+)*|[^\w\s.,:;?!'\"`-]")


class MissingScores(ValueError):
    """pycocoevalcap cannot be used."""


class JavaError(RuntimeError):
    """Java is missing, does not start, or does not do what it is asked for."""


@dataclass
class CaptionScores:
    """Scores of captions, in order.

    Attributes:
        metrics: ``cider``, ``bleu1`` to ``bleu4`` and, with the tokenizer 'ptb', ``meteor``, of all captions: 0 to 10
            for CIDEr, 0 to 1 for the others. Tables of papers show 100 times these. CIDEr is the mean over the
            captions, METEOR and BLEU are not: they add up matches first.
        samples: of each caption, ``cider``, ``bleu4`` and, likewise, ``meteor``.
        tokenizer: one of ``TOKENIZERS``.
    """

    metrics: dict[str, float]
    samples: list[dict[str, float]]
    tokenizer: str


def check_scores() -> None:
    """Try out everything that :func:`score_captions` needs, before hours are spent on captions.

    Raises:
        MissingScores: pycocoevalcap is not installed: nothing can be scored.
        JavaError: only the plain tokenizer will do.
    """
    for name in ('cider.cider', 'bleu.bleu', 'tokenizer.ptbtokenizer', 'meteor.meteor'):
        _pycocoevalcap(name)
    words = ptb_words(['A check.'], _FIRST_ANSWER)
    if words != ['a check']:
        raise JavaError(f"the tokenizer of pycocoevalcap makes {words} of 'A check.'")
    _run_java(_meteor_command(), ['SCORE ||| a check ||| a check'], 1, _FIRST_ANSWER)


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = 'ptb'
                   ) -> CaptionScores:
    """Score each caption against its references.

    What models add to a caption is not counted: tags such as ``<p>``, ``[SEG]`` and the name ``region1``, as in the
    released evaluation. An empty caption scores 0.

    Args:
        captions: one of each object.
        references: of each object, one or more sentences.
        tokenizer: one of ``TOKENIZERS``; 'plain' works without Java and without METEOR.

    Raises:
        ValueError: no captions, an object without references, or references without a single word.
        MissingScores: pycocoevalcap is not installed.
        JavaError: with 'ptb', Java does not run.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f'tokenizer must be one of {", ".join(TOKENIZERS)}, got {tokenizer!r}')
    if not captions or len(captions) != len(references) or not all(references):
        raise ValueError('each caption needs at least one reference, and there must be a caption')
    cider, bleu = _pycocoevalcap('cider.cider').Cider(), _pycocoevalcap('bleu.bleu').Bleu(4)
    words = ptb_words if tokenizer == 'ptb' else plain_words
    tokenized = iter(words([*map(spoken, captions), *(sentence for each in references for sentence in each)]))
    captions = [next(tokenized) for _ in captions]
    references = [[next(tokenized) for _ in each] for each in references]
    if not any(sentence for each in references for sentence in each):
        raise ValueError('no reference has a word in it')
    given, said = dict(enumerate(references)), {number: [caption] for number, caption in enumerate(captions)}
    whole, each = cider.compute_score(given, said)
    metrics, columns = dict(cider=whole), dict(cider=each)
    if tokenizer == 'ptb':
        metrics['meteor'], columns['meteor'] = _meteor(captions, references)
    whole, each = bleu.compute_score(given, said, verbose=0)
    metrics |= {f'bleu{n}': value for n, value in enumerate(whole, start=1)}
    columns['bleu4'] = each[3]
    samples = [dict(zip(columns, map(float, row))) for row in zip(*columns.values(), strict=True)]
    return CaptionScores({name: float(value) for name, value in metrics.items()}, samples, tokenizer)


def ptb_words(sentences: Sequence[str], patience: float = _LAST_ANSWER) -> list[str]:
    """Words of each sentence, lower case, with single spaces between and without punctuation (Penn Treebank).

    Raises:
        JavaError: Java does not run within ``patience`` seconds.
    """
    package = _pycocoevalcap('tokenizer.ptbtokenizer')
    lines = _run_java(['-cp', _beside(package, package.STANFORD_CORENLP_3_4_1_JAR),
                       'edu.stanford.nlp.process.PTBTokenizer', '-preserveLines', '-lowerCase'],
                      [_one_line(sentence) for sentence in sentences], len(sentences), patience)
    return [' '.join(word for word in line.split() if word not in package.PUNCTUATIONS) for line in lines]


def plain_words(sentences: Sequence[str]) -> list[str]:
    """The same without Java. Brackets, fractions and the like come out otherwise than from the Penn Treebank's."""
    return [' '.join(_PLAIN_WORD.findall(_CLITIC.sub(r' \1', _one_line(sentence).lower().replace('’', "'"))))
            for sentence in sentences]


def _meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR 1.5 of all captions, and of each."""
    matches = _run_java(_meteor_command(), [' ||| '.join(['SCORE', *given, said])
                                            for said, given in zip(captions, references)], len(captions))
    *each, whole = map(float, _run_java(_meteor_command(), [' ||| '.join(['EVAL', *matches])], len(captions) + 1))
    return whole, each


def _meteor_command() -> list[str]:
    package = _pycocoevalcap('meteor.meteor')
    return ['-Xmx2G', '-jar', _beside(package, package.METEOR_JAR), '-', '-', '-stdio', '-l', 'en', '-norm']


def _run_java(arguments: Sequence[str], lines: Sequence[str], expected: int, patience: float = _LAST_ANSWER
              ) -> list[str]:
    """The lines that a Java program answers; it has ended when this returns or raises."""
    text = ''.join(f'{line}\n' for line in lines).encode('utf-8', 'replace')
    try:
        done = subprocess.run([*_JAVA, *arguments], input=text, capture_output=True, timeout=patience)
    except FileNotFoundError as error:
        raise JavaError('there is no java on PATH') from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f'java does not run: {error}') from error
    complaint = done.stderr.decode(errors='replace').strip()[-500:]
    if done.returncode:
        raise JavaError(f'java ended with status {done.returncode}: {complaint}')
    answers = done.stdout.decode('utf-8', 'replace').removesuffix('\n').split('\n')
    if len(answers) != expected:
        raise JavaError(f'java gave {len(answers)} lines in place of {expected}: {complaint}')
    return answers


def _pycocoevalcap(name: str) -> ModuleType:
    if find_spec('pycocoevalcap') is None:
        raise MissingScores('captions are scored by pycocoevalcap, which is not installed: pip install '
                            'pycocoevalcap==1.2 (it stands in requirements/lock.txt)')
    return importlib.import_module(f'pycocoevalcap.{name}')


def _beside(module: ModuleType, file: str) -> str:
    return str(Path(module.__file__).with_name(file))


def spoken(caption: str) -> str:
    """A caption without tags such as ``<p>``, ``[SEG]`` and the name ``region1``."""
    return _MARKUP.sub(' ', caption)


def _one_line(sentence: str) -> str:
    return ' '.join(_UNSPEAKABLE.sub(' ', sentence).split())
