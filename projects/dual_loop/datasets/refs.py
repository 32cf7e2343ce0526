"""Referring expressions of RefCOCO, RefCOCO+ and RefCOCOg, and which COCO images they hold out from training."""

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmengine.registry import FUNCTIONS

from llava_sam2.paths import resolve

from .callables import build, named_function
from .index_store import IndexSource, unreadable, walk
from .plain_pickle import load_plain_pickle

VARIANTS = ('refcoco', 'refcoco+', 'refcocog')
_REF_KEYS = dict(ref_id=int, ann_id=int, image_id=int, split=str, sentences=list)
_SENTENCE_KEYS = dict(sent=str, sent_id=int)
_COCO_NAME = re.compile(r'(?:.*/)?(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{1,12})(?:\.(?:jpe?g|png))?', re.IGNORECASE)


def load_refs(path: str | Path) -> list[dict[str, Any]]:
    """Read a ``refs(*.p)`` file: a dictionary per referred object, with ``ref_id, ann_id, image_id, split, sentences``.

    Raises:
        ValueError: not such a file, or one that would run code (``UnsafePickle``); none of it is run.
    """
    refs = load_plain_pickle(read_whole(path), path)
    if not isinstance(refs, list) or not all(
            _has(ref, _REF_KEYS) and all(_has(each, _SENTENCE_KEYS) for each in ref['sentences']) for ref in refs):
        raise ValueError(f'{path} is not a list of references with {", ".join(_REF_KEYS)}, each sentence with '
                         f'{" and ".join(_SENTENCE_KEYS)}. Download it again')
    return refs


def _has(entry: Any, kinds: dict[str, type]) -> bool:
    return isinstance(entry, dict) and all(
        type(entry.get(key)) is kind and (kind is not int or 0 <= entry[key] < 2**63) for key, kind in kinds.items())


def load_instances(path: str | Path) -> dict[str, Any]:
    """Read a COCO ``instances.json``.

    Raises:
        ValueError: not such a file.
    """
    content = load_json(path)
    if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) and all(_has(each, dict(id=int)) for each in content[key])
            for key in ('images', 'annotations')):
        raise ValueError(f'{path} is not a COCO file with lists of images and annotations. Download it again')
    return content


def load_json(path: str | Path) -> Any:
    """Read a JSON file. Raises ``ValueError`` that names it."""
    try:
        return json.loads(read_whole(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not a JSON file that can be read: {error}. Download it again') from error


def read_whole(path: str | Path) -> bytes:
    """The bytes of a file. Raises ``PermissionError`` with what to do."""
    try:
        return Path(path).read_bytes()
    except PermissionError as error:
        raise unreadable(error) from error


def is_text(value: object) -> bool:
    """Whether it is a text with words in it that can be stored as UTF-8: single surrogates cannot."""
    return isinstance(value, str) and bool(value.strip()) and not re.search('[\ud800-\udfff]', value)


# Images that are never trained on ------------------------------------------------------------------------------------


@FUNCTIONS.register_module()
def held_out_image_ids(data_root: str | Path, datasets: Iterable[str] = VARIANTS) -> list[int]:
    """COCO ids of the images in any split but 'train' of any variant and partition found below ``data_root``, sorted.

    They must not be trained on: a training image of one variant may be a test image of another. A process reads
    unchanged files once.

    Raises:
        FileNotFoundError: none of the variants is there.
        PermissionError: a folder or file may not be read, so that what it holds out is not known.
    """
    return list(_held_out(tuple((file, file.stat().st_size, file.stat().st_mtime_ns)
                                for file in held_out_files(data_root, datasets))))


@lru_cache(maxsize=8)
def _held_out(files: tuple[tuple[Path, int, int], ...]) -> tuple[int, ...]:
    return tuple(sorted({ref['image_id'] for file, *_ in files for ref in load_refs(file) if ref['split'] != 'train'}))


def held_out_files(data_root: str | Path, datasets: Iterable[str] = VARIANTS) -> list[Path]:
    """The files that ``held_out_image_ids`` reads. Raises what it raises."""
    root, datasets = resolve(data_root), list(datasets)
    files = [file for dataset in datasets for file in refs_files(root / dataset)]
    if not files:
        raise FileNotFoundError(f'{root} holds none of {", ".join(datasets)} with a refs(*).p: check data_root')
    return files


def refs_files(folder: Path) -> list[Path]:
    """The ``refs(*).p`` of one variant, one per partition; none if there is no such folder."""
    if not folder.is_dir():
        return []
    _, names, _ = next(walk(folder))
    return [folder / name for name in names if re.fullmatch(r'refs\(.*\)\.p', name)]


def excluded_ids(spec: Iterable[int] | Callable | dict) -> frozenset[int]:
    """The image ids of an ``exclude_image_ids`` argument: given, or made by a callable or ``dict(type=...)``."""
    return frozenset(map(int, build(spec) if callable(spec) or isinstance(spec, dict) else spec))


def exclusion(spec: Iterable[int] | Callable | dict) -> frozenset[int] | Callable | dict:
    """An ``exclude_image_ids`` argument to keep: ids as a set, since an iterator would be empty the second time."""
    return spec if callable(spec) or isinstance(spec, dict) else excluded_ids(spec)


def exclusion_source(spec: Iterable[int] | Callable | dict) -> IndexSource:
    """What the ids of an ``exclude_image_ids`` argument are made from; of ``held_out_image_ids`` its files, unread."""
    if isinstance(spec, dict):
        arguments = dict(spec)
        function = arguments.pop('type')
        if named_function(function) is held_out_image_ids:
            return IndexSource(files=held_out_files(**arguments))
    ids = sorted(excluded_ids(spec))
    return IndexSource(arguments=dict(excluded=sha256(json.dumps(ids).encode()).hexdigest()))


def coco_image_id(value: object) -> int | None:
    """The number of a COCO image: 194216, '194216', '000000194216.jpg', 'COCO_train2014_000000194216.jpg'; else None.

    COCO 2014 and 2017 number the same images alike.
    """
    if isinstance(value, str) and (match := _COCO_NAME.fullmatch(value)):
        return int(match[1])
    return value if type(value) is int and value >= 0 else None
