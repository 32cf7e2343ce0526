"""Every sentence that docs/troubleshooting.md quotes is one that the code says."""

import ast
import importlib
import re

import pytest

#: Of libraries: name -> where it is.
FOREIGN = {'OutOfMemoryError': 'torch'}
#: What the log and the tables call a figure, not a sentence.
FIGURES = {'loop2/empty_mask', 'no_seg_rate', 'loop1/distinct_1', 's: data', 'wait', '[SEG]', '...'}


def quotes(page: str) -> list[str]:
    """Code in the first column of its tables."""
    rows = re.findall(r'^\| (.*?) \| ', page, re.M)
    return [quote for row in rows for quote in re.findall(r'`([^`]+)`', row) if quote not in FIGURES]


@pytest.fixture(scope='module')
def said(checkout) -> list[str]:
    """Every string of the code, with ``\\0`` for what is put in."""
    found = []
    for folder in ('projects', 'tools'):
        for file in (checkout / folder).rglob('*.py'):
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    found.append(''.join(part.value if isinstance(part, ast.Constant) else '\0'
                                         for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return [text.replace('`', '') for text in found]


def in_code(quote: str, said: list[str]) -> bool:
    """``...`` stands for what is put in and, in long sentences, what surrounds it."""
    parts = [part.strip() for part in quote.split('...') if part.strip()]
    loose = re.compile('.*'.join(map(re.escape, parts)), re.S)
    return any(loose.search(text) for text in said)


def test_quoted_errors_are_in_the_code(checkout, said):
    quoted = quotes((checkout / 'docs/troubleshooting.md').read_text())
    assert len(quoted) > 25
    missing = [quote for quote in quoted if quote not in FOREIGN and not in_code(quote, said)]
    assert not missing


def test_errors_of_libraries_exist():
    for name, module in FOREIGN.items():
        assert issubclass(getattr(importlib.import_module(module), name), Exception)


def test_figures_are_logged(checkout):
    names = {'empty_mask': 'models/caption_loop.py', 'distinct_1': 'models/caption_figures.py',
             'no_seg_rate': 'evaluation/scores.py'}
    for name, file in names.items():
        assert re.search(rf"{name}['=]|{name}\b", (checkout / 'projects/dual_loop' / file).read_text()), name


def test_a_sentence_that_nobody_says_is_found(said):
    assert not in_code('no batch came from the moon', said)
    assert in_code('no batch came from the loader of ... within ... s: its workers', said)
