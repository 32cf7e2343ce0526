"""Pictures that a data set leaves out: what its argument ``exclude_image_ids`` says, and the names of a picture."""

import json
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path, PurePath

from .callables import build, named_function
from .index_store import IndexSource
from .refs import coco_image_id, held_out_files, held_out_image_ids

Spec = Iterable[int | str] | Callable | dict
_COCO_FILE = re.compile(r'(?:COCO_(?:train|val|test)20[0-9]{2}_)?([0-9]{12})\.(?:jpe?g|png)', re.IGNORECASE)
COCO_NUMBER = '(^|[^0-9A-Za-z])[0-9]{12}([^0-9A-Za-z]|$)'  # what every text with the name of such a file has in it
_SUFFIXES = ('.jpg', '.jpeg', '.png')
REMEDY = ("set exclude_image_ids=dict(type=held_out_image_ids, data_root='data/ref_seg'), or () to use all of them "
          'knowingly')


def excluded_ids(spec: Spec) -> frozenset[int | str]:
    """The pictures of an ``exclude_image_ids`` argument: given, or made by a callable or ``dict(type=...)``.

    Numbers of COCO, in any form that ``coco_image_id`` knows, are whole numbers; other names lose the suffix.

    Raises:
        ValueError: it names no pictures.
    """
    given = build(spec) if callable(spec) or isinstance(spec, dict) else spec
    if isinstance(given, str):
        raise ValueError(f'exclude_image_ids must be a list of ids of pictures, got the text {given!r}')
    return frozenset(_canonical(each) for each in given)


def _canonical(name: object) -> int | str:
    if not isinstance(name, str):
        return int(name)  # type: ignore[call-overload]
    number = coco_image_id(name)
    return _stem(name) if number is None else number


def exclusion(spec: Spec) -> frozenset[int | str] | Callable | dict:
    """An ``exclude_image_ids`` argument to keep: ids as a set, since an iterator would be empty the second time."""
    return spec if callable(spec) or isinstance(spec, dict) else excluded_ids(spec)


def exclusion_source(spec: Spec) -> IndexSource:
    """What the ids of an ``exclude_image_ids`` argument are made from; of ``held_out_image_ids`` its files, unread."""
    if isinstance(spec, dict):
        arguments = dict(spec)
        function = arguments.pop('type')
        if named_function(function) is held_out_image_ids:
            return IndexSource(files=held_out_files(**arguments))
    ids = sorted(excluded_ids(spec), key=lambda each: (isinstance(each, str), each))
    return IndexSource(arguments=dict(excluded=sha256(json.dumps(ids).encode()).hexdigest()))


def names_of(picture: str | Path) -> set[int | str]:
    """What ``exclude_image_ids`` may call a picture: its file's name without the suffix, and its number in COCO."""
    number = coco_image_id(PurePath(picture).name)
    return {_stem(picture)} if number is None else {_stem(picture), number}


def _stem(name: str | Path) -> str:
    path = PurePath(name)
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def coco_file_number(name: str) -> int | None:
    """The number of a picture whose file is named just as COCO does it (twelve digits); else None."""
    match = _COCO_FILE.fullmatch(name)
    return int(match[1]) if match else None
