"""Links of the pages lead somewhere."""

import re
from pathlib import Path

import pytest


def anchors(text):
    """As GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r'^#+ (.*)$', re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = ['README.md', 'README_zh-CN.md', 'CONTRIBUTING.md',
         *(f'docs/{page.name}' for page in sorted((CHECKOUT / 'docs').glob('*.md')))]
#: Link nowhere.
WITHOUT = ['docs/benchmarks.md', 'docs/exactness.md', 'docs/install.md']


@pytest.mark.parametrize('page', PAGES)
def test_linked_files_and_sections_exist(checkout, page):
    file = checkout / page
    links = re.findall(r'\]\(([^)]+)\)', file.read_text())
    assert links or page in WITHOUT
    for link in links:
        if link.startswith('https://'):
            continue
        name, _, anchor = link.partition('#')
        target = file.parent / name if name else file
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link
