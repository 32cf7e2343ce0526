"""Referring expressions of RefCOCO, RefCOCO+ and RefCOCOg, and which COCO images they hold out from training."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import FUNCTIONS

from llava_sam2.paths import resolve

from .index_store import walk
from .json_files import RepeatedKeys, load_json, read_whole
from .plain_pickle import load_plain_pickle

VARIANTS = ('refcoco', 'refcoco+', 'refcocog')
REF_FIELDS = dict(ref_id=int, ann_id=int, image_id=int, split=str, sentences=list)
SENTENCE_FIELDS = dict(sent=str, sent_id=int)
_COCO_NAME = re.compile(r'(?:.*/)?(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{1,12})(?:\.(?:jpe?g|png))?', re.IGNORECASE)
# The file_name of a reference is that of its image with the number of the annotation.
_NAMED_BY_IMAGE = re.compile(r'COCO_[a-z]+[0-9]{4}_([0-9]{12})(?![0-9])')


class BadRef(NamedTuple):
    """An entry of a ``refs(*.p)`` that cannot be used.

    Attributes:
        position: in the list.
        entry: as it stands there.
        reason: what is wrong.
    """

    position: int
    entry: Any
    reason: str

    @property
    def split(self) -> str | None:
        """The split that it may belong to; None for any."""
        split = self.entry.get('split') if isinstance(self.entry, dict) else None
        return split if isinstance(split, str) else None


def load_refs(path: str | Path) -> list[dict[str, Any]]:
    """Read a ``refs(*.p)`` file: a dictionary per referred object, with ``ref_id, ann_id, image_id, split, sentences``.

    Raises:
        ValueError: not such a file, an entry that cannot be used, or code that would run (``UnsafePickle``); none of it
            is run.
    """
    refs, bad = read_refs(path)
    reasons = [each.reason for each in bad]
    reasons += [f'a sentence of ref_id {ref["ref_id"]} has no usable {" or ".join(SENTENCE_FIELDS)}'
                for ref in refs for each in ref['sentences'] if not has_fields(each, SENTENCE_FIELDS)]
    if reasons:
        raise ValueError(f'{path}: {reasons[0]}. Download it again')
    return refs


def read_refs(path: str | Path) -> tuple[list[dict[str, Any]], list[BadRef]]:
    """The entries of a ``refs(*.p)`` file whose fields are right, sentences not looked at, and those that are not.

    Raises:
        ValueError: not such a file, or one that would run code (``UnsafePickle``); none of it is run.
    """
    content = load_plain_pickle(read_whole(path), path)
    if not isinstance(content, list):
        raise ValueError(f'{path} is not a list of references. Download it again')
    refs, bad = [], []
    for position, ref in enumerate(content):
        if has_fields(ref, REF_FIELDS):
            refs.append(ref)
        else:
            wrong = [key for key, kind in REF_FIELDS.items() if not has_fields(ref, {key: kind})]
            bad.append(BadRef(position, ref, f'entry {position} has no usable {", ".join(wrong)}'))
    if bad and not refs:
        raise ValueError(f'{path} is not a list of references with {", ".join(REF_FIELDS)}: {bad[0].reason}, and no '
                         'other is better. Download it again')
    return refs, bad


def has_fields(entry: Any, kinds: Mapping[str, type]) -> bool:
    """Whether an entry has fields of these types, and whole numbers that an index can hold."""
    return isinstance(entry, dict) and all(
        type(entry.get(key)) is kind and (kind is not int or 0 <= entry[key] < 2**63) for key, kind in kinds.items())


def load_instances(path: str | Path, remedy: str = 'Download it again') -> dict[str, Any]:
    """Read a COCO ``instances.json``; ``remedy`` stands at the end of an error.

    Raises:
        ValueError: not such a file, or not one of its annotations or images has an id.
    """
    content = load_json(path, keep_repeats=True, remedy=remedy)
    kinds = ('images', 'annotations')
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in kinds):
        raise ValueError(f'{path} is not a COCO file with lists of images and annotations. {remedy}')
    if isinstance(content, RepeatedKeys):
        raise ValueError(f'{path} is not one COCO file: it has the key {min(content.repeated)!r} twice. {remedy}')
    for key in kinds:
        if content[key] and not any(has_fields(each, dict(id=int)) for each in content[key]):
            raise ValueError(f'{path} is not a COCO file: none of its {len(content[key])} {key} has an id that is a '
                             f'whole number from 0. {remedy}')
    return content


# Images that are never trained on ------------------------------------------------------------------------------------


@FUNCTIONS.register_module()
def held_out_image_ids(data_root: str | Path, datasets: Iterable[str] = VARIANTS) -> list[int]:
    """COCO ids of the images in any split but 'train' of any variant and partition found below ``data_root``, sorted.

    They must not be trained on: a training image of one variant may be a test image of another. A process reads
    unchanged files once.

    Raises:
        FileNotFoundError: none of the variants is there.
        PermissionError: a folder or file may not be read, so that what it holds out is not known.
        ValueError: nor is it where an entry that is not in 'train' names no image.
    """
    return list(_held_out(tuple((file, file.stat().st_size, file.stat().st_mtime_ns)
                                for file in held_out_files(data_root, datasets))))


@lru_cache(maxsize=8)
def _held_out(files: tuple[tuple[Path, int, int], ...]) -> tuple[int, ...]:
    found: set[int] = set()
    for file, *_ in files:
        refs, bad = read_refs(file)
        found |= {ref['image_id'] for ref in refs if ref['split'] != 'train'}
        found |= {_image_of(each, file) for each in bad if each.split != 'train'}
    return tuple(sorted(found))


def _image_of(bad: BadRef, file: Path) -> int:
    """The image of an entry that cannot be used, which is held out all the same."""
    fields = dict(image_id=int), dict(file_name=str)
    if has_fields(bad.entry, fields[0]):
        return bad.entry['image_id']
    if has_fields(bad.entry, fields[1]) and (match := _NAMED_BY_IMAGE.match(bad.entry['file_name'])):
        return int(match[1])
    raise ValueError(f'{file}: {bad.reason}, and its split is {bad.split!r}, so that an image is held out and nothing '
                     'says which. Download it again')


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


def coco_image_id(value: object) -> int | None:
    """The number of a COCO image: 194216, '194216', '000000194216.jpg', 'COCO_train2014_000000194216.jpg'; else None.

    COCO 2014 and 2017 number the same images alike.
    """
    if isinstance(value, str) and (match := _COCO_NAME.fullmatch(value)):
        return int(match[1])
    return value if type(value) is int and value >= 0 else None
