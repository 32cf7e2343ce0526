"""JSON files as they come from elsewhere: damaged, nested without end, with one key twice."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .index_store import unreadable


class RepeatedKeys(dict):
    """An object of a JSON file that has some key twice, and so two values of which only one is kept.

    Attributes:
        repeated: these keys.
    """

    repeated: frozenset[str] = frozenset()


def parse_json(data: bytes) -> Any:
    """The content of a JSON file; an object with a key twice is a ``RepeatedKeys``. Raises ``ValueError``."""
    try:
        return json.loads(data, object_pairs_hook=_noting_repeats)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error


def load_json(path: str | Path, keep_repeats: bool = False, remedy: str = 'Download it again') -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        keep_repeats: an object with a key twice is a ``RepeatedKeys``, else an error.
        remedy: what to do, at the end of an error.

    Raises:
        ValueError: that names the file.
    """
    try:
        content = parse_json(read_whole(path))
    except ValueError as error:
        raise ValueError(f'{path} is not a JSON file that can be read: {error}. {remedy}') from error
    if not keep_repeats and (key := _repeated_key(content)) is not None:
        raise ValueError(f'{path} has the key {key!r} twice in one object: remove one of the two')
    return content


def _repeated_key(content: Any) -> str | None:
    waiting = [content]
    while waiting:
        each = waiting.pop()
        if isinstance(each, RepeatedKeys):
            return min(each.repeated)
        if isinstance(each, (dict, list)):
            waiting += each.values() if isinstance(each, dict) else each
    return None


def read_whole(path: str | Path) -> bytes:
    """The bytes of a file. Raises ``PermissionError`` with what to do."""
    try:
        return Path(path).read_bytes()
    except PermissionError as error:
        raise unreadable(error) from error


def _noting_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    repeated = RepeatedKeys(content)
    repeated.repeated = frozenset(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return repeated
