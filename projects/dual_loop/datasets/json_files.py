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


def load_json(path: str | Path) -> Any:
    """``parse_json`` of a file. Raises ``ValueError`` that names it."""
    try:
        return parse_json(read_whole(path))
    except ValueError as error:
        raise ValueError(f'{path} is not a JSON file that can be read: {error}. Download it again') from error


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
