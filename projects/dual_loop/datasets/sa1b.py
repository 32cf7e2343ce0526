"""SA-1B: pictures with about a hundred masks each and no words."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .images import read_bytes
from .index import Table, TableBuilder
from .index_store import find_files
from .lengths import numbers_or_nan
from .masks import decode_segmentation
from .parallel import map_in_order
from .quarantine import BadSample

_FILES_AT_ONCE = 64


@DATASETS.register_module()
class SA1BDataset(GroundedDataset):
    """One sample per annotation.

    Layouts below ``data_root``: the release's ``sa_000000/sa_1.jpg`` with ``sa_1.json`` beside it, or ``img/*.jpg``
    with ``js/*.json``. Masks may be polygons or run-length codes.

    Args:
        data_root: folder of the pictures and annotation files.
        **common: see ``GroundedDataset``.
    """

    licence = 'SA-1B (Meta): SA-1B Dataset Research License, research only'
    obtain = 'Archives, after accepting the licence: https://ai.meta.com/datasets/segment-anything'

    def __init__(self, data_root: str | Path, **common):
        self._last_file: tuple[str, tuple] | None = None
        super().__init__(data_root, **common)

    def build_index(self) -> dict[str, Table]:
        files = find_files(self.data_root, '*.json')
        chunks = [(self.data_root, first, files[first:first + _FILES_AT_ONCE])
                  for first in range(0, len(files), _FILES_AT_ONCE)]

        def tables() -> Iterator[Table]:
            listed = 0
            yield _samples_of((self.data_root, 0, []))[0]
            for table, problems in map_in_order(_samples_of, chunks, f'index of {self.source}, {len(files)} files'):
                for file, reason in problems:
                    self.quarantine.note(Path(file).stem, self.data_root / file, reason)
                yield table
                listed += len(table)
                if self.max_samples is not None and listed >= self.max_samples:
                    break

        return dict(samples=Table.concatenate(tables()), files=Table.of(file=files))

    def sample_id(self, row: int) -> str:
        return f'{Path(self._file(row)).stem}_{self.index["object"][row]}'

    def path(self, row: int) -> Path:
        return image_of(self.data_root / self._file(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        file, position = self._file(row), self.index['position'][row]
        path = self.data_root / file
        if self._last_file is None or self._last_file[0] != file:
            self._last_file = file, read_annotations(path)
        size, annotations = self._last_file[1]
        if position >= len(annotations):
            raise BadSample(f'annotation {position} has gone since the index was made', path)
        return decode_segmentation(annotations[position].get('segmentation'), height, width, path, stated=size[::-1])

    def _file(self, row: int) -> str:
        return self.tables['files']['file'][self.index['image'][row]]


def _samples_of(chunk: tuple[Path, int, list[str]]) -> tuple[Table, list[tuple[str, str]]]:
    """The rows of some annotation files, numbered from the given one on, and (file, reason) of those that are bad."""
    root, first, files = chunk
    builder = TableBuilder(image=int, object=int, position=int, box_width=float, box_height=float, area=float,
                           image_width=float, image_height=float)
    problems = []
    for number, file in enumerate(files, first):
        try:
            size, annotations = read_annotations(root / file)
        except BadSample as error:
            problems.append((file, error.reason))
            continue
        for position, annotation in enumerate(annotations):
            _, _, box_width, box_height = numbers_or_nan(annotation.get('bbox'), 4)
            builder.append(image=number, object=_identity(annotation, position), position=position,
                           box_width=box_width, box_height=box_height, image_width=size[0], image_height=size[1],
                           area=numbers_or_nan([annotation.get('area')], 1)[0])
    return builder.build(), problems


def image_of(annotation_file: Path) -> Path:
    """The picture of an annotation file, in either layout."""
    folder = annotation_file.parent
    if folder.name == 'js':
        folder = folder.parent / 'img'
    return folder / f'{annotation_file.stem}.jpg'


def read_annotations(path: Path) -> tuple[tuple[float, float], list[dict]]:
    """An annotation file: ((width, height) in pixels, NaN if it does not say; its annotations).

    Raises:
        BadSample: missing, empty or not such a file.
    """
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        if isinstance(error, BadSample):
            raise
        raise BadSample(f'is not a JSON file: {error}', path) from error
    if isinstance(content, dict) and 'images' in content:
        raise BadSample('is a COCO file of many pictures; SA-1B has a file for each', path)
    annotations = content.get('annotations') if isinstance(content, dict) else None
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        raise BadSample('has no list of annotations', path)
    image = content.get('image')
    image = image if isinstance(image, dict) else {}
    width, height = numbers_or_nan([image.get('width'), image.get('height')], 2)
    return (width, height), annotations


def _identity(annotation: dict, position: int) -> int:
    identity = annotation.get('id')
    return identity if isinstance(identity, int) else position
