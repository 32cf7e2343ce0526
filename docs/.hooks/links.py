"""Called by mkdocs (mkdocs.yml): links that leave docs/, and pages that are not there yet."""

import posixpath
import re
from collections.abc import MutableMapping
from pathlib import Path

_CODE = re.compile(r'(^(?P<fence>`{3,}).*?^(?P=fence)`*$|(?P<ticks>`+).+?(?P=ticks)(?!`))', re.M | re.S)
_LINK = re.compile(r'(?<!!)\[(?P<text>(?:`[^`]*`|[^\]`])*)\]\((?P<target>[^)\s]+)\)')


def sources_linked(markdown: str, page: str, repository: str = '') -> str:
    """A page whose links to files outside docs/ lead to the repository, or are plain text without its address.

    Args:
        markdown: text of the page.
        page: its path below docs/.
        repository: address that its sources can be browsed at.
    """
    fences = [match.span() for match in _CODE.finditer(markdown) if match['fence']]

    def replaced(match: re.Match) -> str:
        target, _, anchor = match['target'].partition('#')
        path = posixpath.normpath(posixpath.join('docs', posixpath.dirname(page), target))
        if not target or '://' in target or path.startswith('docs/') \
                or any(begin <= match.start() < end for begin, end in fences):
            return match[0]
        if not repository:
            return match['text']
        return f'[{match["text"]}]({repository.rstrip("/")}/blob/main/{path}{"#" * bool(anchor)}{anchor})'

    return _LINK.sub(replaced, markdown)


def there(nav: list, folder: Path) -> list:
    """The entries of a nav whose pages exist; sections without any go too."""
    found = []
    for entry in nav:
        [(title, target)] = entry.items()
        if isinstance(target, list):
            target = there(target, folder)
        elif not (folder / target).is_file():
            continue
        if target:
            found.append({title: target})
    return found


def on_config(config: MutableMapping) -> MutableMapping:
    config['nav'] = there(config['nav'], Path(config['docs_dir']))
    return config


def on_page_markdown(markdown: str, page, config: MutableMapping, files) -> str:
    return sources_linked(markdown, page.file.src_uri, config['repo_url'] or '')
