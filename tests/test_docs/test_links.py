"""Links of the pages lead somewhere."""

import re

import pytest


def anchors(text):
    """As GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r'^#+ (.*)$', re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


PAGES = ['README.md', 'CONTRIBUTING.md', *(f'docs/{name}.md' for name in (
    'README', 'custom_data', 'data', 'data_class', 'evaluation', 'export', 'extending', 'training', 'try'))]


@pytest.mark.parametrize('page', PAGES)
def test_linked_files_and_sections_exist(checkout, page):
    file = checkout / page
    links = re.findall(r'\]\(([^)]+)\)', file.read_text())
    assert links
    for link in links:
        if link.startswith('https://'):
            continue
        name, _, anchor = link.partition('#')
        target = file.parent / name if name else file
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link
