"""Pages of docs/ as headings and code blocks."""

import re
from collections import defaultdict

import pytest


@pytest.fixture(scope='session')
def code_blocks(checkout):
    """Heading -> (language, text) of its code blocks in order; '' where a block has no language."""

    def read(page: str) -> dict[str, list[tuple[str, str]]]:
        found, heading = defaultdict(list), ''
        parts = re.split(r'^```(\w*)\n(.*?)^```$', (checkout / 'docs' / page).read_text(), flags=re.M | re.S)
        for prose, language, text in zip(parts[::3], parts[1::3], parts[2::3]):
            heading = (re.findall(r'^#+ (.*)$', prose, re.M) or [heading])[-1]
            found[heading].append((language, text))
        return dict(found)

    return read
