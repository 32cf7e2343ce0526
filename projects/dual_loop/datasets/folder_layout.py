"""A folder of one's own: which files are pictures, which are masks, and which mask belongs to which picture."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from .index_store import walk

IMAGES, MASKS = 'images', 'masks'
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jfif', '.png', '.webp', '.bmp', '.tif', '.tiff')
MASK_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp', '.gif')
RULE = ('a mask is called as its picture, or as its picture with _ and anything behind it, or lies in a folder of that '
        'name')
_MOST_COMPARED = 5000
_SHORTEST = 4  # letters of a name of which one may be wrong
_Entry = TypeVar('_Entry')


@dataclass
class Files:
    """Files of a folder by name: relative path without suffix, in one normal form of Unicode.

    Attributes:
        paths: name -> relative path, of those that can be told by their name.
        twins: name -> relative paths, where several files have it.
        others: files of another kind.
    """

    paths: dict[str, str] = field(default_factory=dict)
    twins: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def normal(name: str) -> str:
    """A name as file systems and people write it: one form of Unicode, / between folders."""
    return unicodedata.normalize('NFC', name.replace('\\', '/')).removeprefix('./')


def stem(path: str, suffixes: Collection[str]) -> str:
    """A path without its suffix, if it has one of these."""
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix.lower() in suffixes else path


def list_files(names: Iterable[str], suffixes: Collection[str]) -> Files:
    """Sort relative paths into ``Files``."""
    found = Files()
    by_name: dict[str, list[str]] = {}
    for path in names:
        if PurePosixPath(path).suffix.lower() in suffixes:
            by_name.setdefault(normal(stem(path, suffixes)), []).append(path)
        else:
            found.others.append(path)
    for name, paths in by_name.items():
        if len(paths) > 1:
            found.twins[name] = paths
        else:
            found.paths[name] = paths[0]
    return found


def annotation_file(root: Path, named: str | None) -> Path | None:
    """The COCO file of a folder: ``named``, or the only json beside ``captions.json``; None if there is none.

    Raises:
        ValueError: several.
    """
    if named is not None:
        return root / named
    names = next(walk(root))[1] if root.is_dir() else []
    found = [name for name in names if name.lower().endswith('.json') and name != 'captions.json']
    if len(found) > 1:
        raise ValueError(f'{root} has several json files ({", ".join(found)}): keep one with the annotations of COCO, '
                         'or name it with annotations=...')
    return root / found[0] if found else None


def picture_of(mask: str, pictures: Collection[str]) -> str | None:
    """The picture that a mask belongs to by the names of both (``RULE``), the longest that fits; None if none does."""
    if mask in pictures:
        return mask
    ends = [place for place, letter in enumerate(mask) if letter in '_/.']
    for place in reversed(ends):
        # name.jpg.png is a habit of some tools, and its suffix the picture's; other dots belong to the name.
        if (mask[place] != '.' or mask[place:].lower() in IMAGE_SUFFIXES) and mask[:place] in pictures:
            return mask[:place]
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """In words, the only known name that a slip of the hand turns into this one; '' if there is none, or several."""
    known = set(known)
    found = {each for each in known if _is_slip(name, each)} if len(known) < _MOST_COMPARED else set()
    return f' (the nearest is {found.pop()})' if len(found) == 1 else ''


def _is_slip(one: str, other: str) -> bool:
    """Whether names differ by capitals, one letter or two that changed places. Numbers tell names apart and count."""
    if abs(len(one) - len(other)) > 1 or min(len(one), len(other)) < _SHORTEST:
        return False
    if re.sub(r'\D', '', one) != re.sub(r'\D', '', other):
        return False
    one, other = one.casefold(), other.casefold()
    start = len(os.path.commonprefix([one, other]))
    one, other = one[start:], other[start:]
    return one[1:] in (other, other[1:]) or one == other[1:] or one[1::-1] + one[2:] == other


def called(names: Mapping[str, _Entry], said: str) -> _Entry | None:
    """What a name in a file means: the entry of ``names`` that it is, with or without the folder before it."""
    said = normal(said)
    for folder in ('', f'{IMAGES}/', f'{MASKS}/'):
        if said.startswith(folder) and (found := names.get(said.removeprefix(folder))) is not None:
            return found
    return None
