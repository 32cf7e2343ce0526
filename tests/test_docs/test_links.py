"""Links of the pages on data lead somewhere."""

import re

import pytest


def anchors(text):
    """As GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r'^#+ (.*)$', re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', ['data.md', 'custom_data.md'])
def test_linked_files_and_sections_exist(checkout, page):
    file = checkout / 'docs' / page
    links = re.findall(r'\]\(([^)]+)\)', file.read_text())
    assert links
    for link in links:
        name, _, anchor = link.partition('#')
        target = file.parent / name if name else file
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link
