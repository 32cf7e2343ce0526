"""The pages as a site: every page is in it, links work, and nothing is fetched from elsewhere."""

import importlib.util
import re
import subprocess
import sys

import pytest


@pytest.fixture(scope='module')
def hook(checkout):
    spec = importlib.util.spec_from_file_location('site_links', checkout / 'docs/.hooks/links.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def settings(checkout) -> str:
    return (checkout / 'mkdocs.yml').read_text()


def test_every_page_is_in_the_nav(checkout, settings):
    listed = re.findall(r': ([\w/]+\.md)$', settings, re.M)
    pages = {page.name for page in (checkout / 'docs').glob('*.md')}
    assert len(listed) == len(set(listed)) and pages <= set(listed)


SOURCES = """See [`loop.py`](../projects/loop.py#L3) and [tools](../tools/a.sh), [a page](data.md#x), [up](#here), [web](https://a.b/c).

```bash
echo '[kept](../projects/loop.py)'
```

![picture](pictures/a.png)
"""


def test_links_to_sources_are_plain_without_an_address(hook):
    assert hook.sources_linked(SOURCES, 'train.md') == SOURCES.replace(
        '[`loop.py`](../projects/loop.py#L3)', '`loop.py`').replace('[tools](../tools/a.sh)', 'tools')


def test_links_to_sources_lead_to_the_repository(hook):
    assert hook.sources_linked(SOURCES, 'train.md', 'https://host/me/it/') == SOURCES.replace(
        '](../projects/loop.py#L3)', '](https://host/me/it/blob/main/projects/loop.py#L3)').replace(
        '](../tools/a.sh)', '](https://host/me/it/blob/main/tools/a.sh)')


def test_pages_that_are_not_there_are_left_out(hook, tmp_path):
    (tmp_path / 'a.md').write_text('')
    nav = [{'A': 'a.md'}, {'B': 'b.md'}, {'C': [{'A': 'a.md'}, {'D': 'd.md'}]}, {'E': [{'F': 'f.md'}]}]
    assert hook.there(nav, tmp_path) == [{'A': 'a.md'}, {'C': [{'A': 'a.md'}]}]


def test_the_fonts_of_the_formulas_are_there(checkout):
    folder = checkout / 'docs/katex'
    fonts = set(re.findall(r'url\(([^)]+)\)', (folder / 'katex.min.css').read_text()))
    assert len(fonts) > 15 and all((folder / font).is_file() for font in fonts)
    assert (folder / 'LICENSE').read_text().startswith('The MIT License')
    assert sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) < 1_000_000


@pytest.fixture(scope='module')
def site(checkout, tmp_path_factory):
    pytest.importorskip('mkdocs')
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder], cwd=checkout,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_is_built_without_a_warning(site, checkout):
    pages = {page.stem for page in (checkout / 'docs').glob('*.md')} - {'README'}
    assert pages | {'index', '404'} == {page.stem for page in site.glob('*.html')}
    assert not (site / '.hooks').exists()


def test_nothing_comes_from_elsewhere(site):
    for page in site.glob('*.html'):
        loaded = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="([^"]*)"', page.read_text())
        assert loaded and not [each for each in loaded if re.match(r'(https?:)?//', each)], page
    for sheet in site.rglob('*.css'):
        assert not re.search(r'(url\(|@import)\s*["\']?(https?:)?//', sheet.read_text()), sheet


def test_formulas_and_sources_in_the_pages(site):
    method, training = (site / 'method.html').read_text(), (site / 'training.html').read_text()
    assert method.count('class="arithmatex"') > 20 and 'katex/render.js' in method and '$$' not in method
    assert 'href="../' not in training and '<code>configs/_base_/real_data.py</code>' in training
