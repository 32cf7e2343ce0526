"""Both READMEs say the same: the code, the links, the pictures and the numbers of one are those of the other."""

import re
from collections import Counter

import pytest

BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
LINK = re.compile(r'\]\(([^)\s]+)\)')
SPAN = re.compile(r'`([^`\n]+)`')
NUMBER = re.compile(r'\d+(?:\.\d+)*')
LABEL = re.compile(r'"[^"]*"')
#: File -> the other language's, which each links first.
READMES = {'README.md': 'README_zh-CN.md', 'README_zh-CN.md': 'README.md'}


def parts(text: str) -> dict[str, object]:
    """What a translation leaves as it is; labels of a diagram are translated."""
    blocks = [(language, LABEL.sub('""', code) if language == 'mermaid' else code)
              for language, code in BLOCK.findall(text)]
    prose = BLOCK.sub('', text)
    links = LINK.findall(prose)
    plain = SPAN.sub('', LINK.sub(']', prose))
    return dict(blocks=blocks, links=links[1:], spans=Counter(SPAN.findall(prose)),
                numbers=Counter(NUMBER.findall(plain)), headings=re.findall(r'^#+', prose, re.M),
                rows=[line.count('|') for line in prose.splitlines() if line.startswith('|')])


@pytest.fixture(scope='module')
def texts(checkout) -> dict[str, str]:
    return {name: (checkout / name).read_text(encoding='utf-8') for name in READMES}


def test_both_have_the_same_code_links_and_numbers(texts):
    english, chinese = map(parts, texts.values())
    assert len(english['blocks']) > 6 and len(english['links']) > 20 and len(english['numbers']) > 20
    for kind, found in english.items():
        assert chinese[kind] == found, kind


def test_each_links_the_other_first(texts):
    for name, other in READMES.items():
        assert LINK.findall(texts[name])[0] == other


def test_every_page_has_its_line(checkout, texts):
    pages = {f'docs/{page.name}' for page in (checkout / 'docs').glob('*.md')}
    for name, text in texts.items():
        rows = '\n'.join(line for line in text.splitlines() if line.startswith('| ['))
        assert pages <= set(LINK.findall(rows)), name


@pytest.mark.parametrize(('kind', 'old', 'changed'), [
    ('blocks', 'dual-loop demo\n', 'dual-loop  demo\n'), ('links', '(docs/try.md)', '(docs/data.md)'),
    ('numbers', '7.30 s', '7.31 s'), ('spans', '`xtuner train`', '`xtuner`'), ('headings', '\n## ', '\n### ')])
def test_a_difference_is_seen(texts, kind, old, changed):
    text = texts['README_zh-CN.md']
    assert old in text and parts(text.replace(old, changed, 1))[kind] != parts(text)[kind]
