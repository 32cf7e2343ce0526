"""SA-1B: pictures with about a hundred masks each and no words."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .exclusion import excluded_ids, names_of
from .images import read_bytes
from .index import Table, TableBuilder
from .index_store import IndexSource
from .instances import is_segmentation
from .json_files import RepeatedKeys, parse_json
from .lengths import numbers_or_nan
from .masks import decode_segmentation
from .parallel import map_in_order
from .quarantine import BadSample
from .row_checks import repeated_rows

_FILES_AT_ONCE = 64


@DATASETS.register_module()
class SA1BDataset(GroundedDataset):
    """One sample per annotation.

    Layouts below ``data_root``: the release's ``sa_000000/sa_1.jpg`` with ``sa_1.json`` beside it, or ``img/*.jpg``
    with ``js/*.json``. Masks may be polygons or run-length codes. A sample is named by file and annotation id; where
    files in several folders have one name, by the path.

    Args:
        data_root: folder of the pictures and annotation files.
        crowds: whether an annotation with ``iscrowd`` is a sample: it outlines a group, not an object.
        **common: see ``GroundedDataset``.
    """

    licence = 'SA-1B (Meta): SA-1B Dataset Research License, research only'
    obtain = 'Archives, after accepting the licence: https://ai.meta.com/datasets/segment-anything'
    index_code = (is_segmentation, )
    ids_are_unique = True

    def __init__(self, data_root: str | Path, crowds: bool = False, **common):
        self.crowds = crowds
        self._last_file: tuple[str, tuple] | None = None
        super().__init__(data_root, **common)

    def index_source(self) -> IndexSource:
        source = super().index_source()
        return replace(source, arguments=dict(crowds=self.crowds))

    def build_index(self) -> dict[str, Table]:
        files = self._files()
        chunks = [(self.data_root, first, files[first:first + _FILES_AT_ONCE], self.crowds)
                  for first in range(0, len(files), _FILES_AT_ONCE)]

        def tables() -> Iterator[Table]:
            listed = 0
            yield _samples_of((self.data_root, 0, [], False))[0]
            for table, problems in map_in_order(_samples_of, chunks, f'index of {self.source}, {len(files)} files'):
                for name, file, reason in problems:
                    self.quarantine.note(name, self.data_root / file, reason)
                yield table
                listed += len(table)
                if self.max_samples is not None and listed >= self.max_samples:
                    break

        return dict(samples=Table.concatenate(tables()), files=Table.of(file=files, **_names(files)))

    def _files(self) -> list[str]:
        """The annotation files of pictures that are not left out, one for each picture."""
        files = self.find_files('*.json')
        if excluded := excluded_ids(self.exclude_image_ids or ()):
            files = [file for file in files if excluded.isdisjoint(names_of(image_of(Path(file))))]
        again = repeated_rows((str(image_of(Path(file))) for file in files), len(files))
        for row, first in again.items():
            self.quarantine.note(files[row].removesuffix('.json'), self.data_root / files[row],
                                 f'{files[first]} is the annotation file of the same picture')
        return [file for row, file in enumerate(files) if row not in again]

    def sample_id(self, row: int) -> str:
        files, number = self.tables['files'], self.index['image'][row]
        name = files['name'][number] if 'name' in files else Path(files['file'][number]).stem
        return f'{name}_{self.index["object"][row]}'

    def path(self, row: int) -> Path:
        return image_of(self.data_root / self._file(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        file, position = self._file(row), self.index['position'][row]
        path = self.data_root / file
        if self._last_file is None or self._last_file[0] != file:
            self._last_file = file, read_annotations(path)
        size, annotations = self._last_file[1]
        if position >= len(annotations) or not isinstance(annotations[position], dict):
            raise BadSample(f'annotation {position} has gone since the index was made', path)
        return decode_segmentation(annotations[position].get('segmentation'), height, width, path, stated=size[::-1])

    def _file(self, row: int) -> str:
        return self.tables['files']['file'][self.index['image'][row]]


def _names(files: list[str]) -> dict[str, list[str]]:
    """A column with a name for each file where files in several folders have one stem: for these the path."""
    repeated = repeated_rows((Path(file).stem for file in files), len(files))
    if not repeated:
        return {}
    shared = repeated.keys() | set(repeated.values())
    return dict(name=[file.removesuffix('.json') if row in shared else Path(file).stem
                      for row, file in enumerate(files)])


def _samples_of(chunk: tuple[Path, int, list[str], bool]) -> tuple[Table, list[tuple[str, str, str]]]:
    """The rows of some annotation files, numbered from the given one on, and (name, file, reason) of what is bad."""
    root, first, files, crowds = chunk
    builder = TableBuilder(image=int, object=int, position=int, box_width=float, box_height=float, area=float,
                           image_width=float, image_height=float)
    problems = []
    for number, file in enumerate(files, first):
        name = file.removesuffix('.json')
        try:
            image, annotations = read_file(root / file)
        except BadSample as error:
            problems.append((name, file, error.reason))
            continue
        width, height = _size(image)
        named: dict[int, int] = {}
        for position, annotation in enumerate(annotations):
            if problem := _problem(annotation, image):
                problems.append((f'{name} annotations[{position}]', file, problem))
                continue
            if annotation.get('iscrowd') and not crowds:
                continue
            identity = _identity(annotation, position)
            if (before := named.setdefault(identity, position)) != position:
                problems.append((f'{name} annotations[{position}]', file,
                                 f'its id {identity} is that of annotations[{before}]'))
                continue
            _, _, box_width, box_height = numbers_or_nan(annotation.get('bbox'), 4)
            builder.append(image=number, object=identity, position=position, box_width=box_width,
                           box_height=box_height, image_width=width, image_height=height,
                           area=numbers_or_nan([annotation.get('area')], 1)[0])
    return builder.build(), problems


def _problem(annotation: object, image: dict) -> str | None:
    """What is wrong with an annotation of an image, if something is."""
    if not isinstance(annotation, dict):
        return 'it is no annotation'
    if isinstance(annotation, RepeatedKeys):
        return f'it has the key {min(annotation.repeated)!r} twice'
    its, wanted = annotation.get('image_id'), image.get('image_id', image.get('id'))
    if not is_segmentation(annotation.get('segmentation')):
        return 'it has no usable segmentation'
    if isinstance(its, (int, str)) and isinstance(wanted, (int, str)) and its != wanted:
        return f'it belongs to image {its!r:.80}, the file to image {wanted!r:.80}'
    return None


def _identity(annotation: dict, position: int) -> int:
    """Its id, or its position where that is none or no number of 64 bits."""
    identity = annotation.get('id')
    return identity if type(identity) is int and abs(identity) < 2**63 else position


def image_of(annotation_file: Path) -> Path:
    """The picture of an annotation file, in either layout."""
    folder = annotation_file.parent
    if folder.name == 'js':
        folder = folder.parent / 'img'
    return folder / f'{annotation_file.stem}.jpg'


def read_annotations(path: Path) -> tuple[tuple[float, float], list]:
    """An annotation file: ((width, height) in pixels, NaN if it does not say; its annotations), see ``read_file``."""
    image, annotations = read_file(path)
    return _size(image), annotations


def read_file(path: Path) -> tuple[dict, list]:
    """An annotation file: what it says of its image (``width, height`` in pixels, ``file_name``; may be empty), and its
    annotations, not looked at.

    Raises:
        BadSample: missing, empty, not such a file, or that of another picture.
    """
    data = read_bytes(path)
    try:
        content = parse_json(data)
    except ValueError as error:
        raise BadSample(f'is not a JSON file: {error}', path) from error
    if isinstance(content, RepeatedKeys):
        raise BadSample(f'has the key {min(content.repeated)!r} twice', path)
    if isinstance(content, dict) and 'images' in content:
        raise BadSample('is a COCO file of many pictures; SA-1B has a file for each', path)
    annotations = content.get('annotations') if isinstance(content, dict) else None
    if not isinstance(annotations, list) or annotations and not any(isinstance(each, dict) for each in annotations):
        raise BadSample('has no list of annotations', path)
    image = content.get('image')
    image = image if isinstance(image, dict) else {}
    name = image.get('file_name')
    if isinstance(name, str) and PurePosixPath(name).stem != path.stem:
        raise BadSample(f'is the annotation file of {name!r:.80} by its content, of {path.stem}.jpg by its name', path)
    return image, annotations


def _size(image: dict) -> tuple[float, float]:
    width, height = numbers_or_nan([image.get('width'), image.get('height')], 2)
    return width, height
