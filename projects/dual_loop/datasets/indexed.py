"""A data set over the rows of a stored index: opening it, length, repeats and substitutes for bad samples."""

import inspect
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Dataset

from llava_sam2.paths import resolve
from llava_sam2.randomness import seed_for

from .callables import build
from .construction import CompletedAfterInit, SetOnCompletion
from .exclusion import COCO_NUMBER, REMEDY, Spec, coco_file_number, excluded_ids, exclusion, exclusion_source, names_of
from .index import Table, TableBuilder
from .index_store import IndexSource, StoredIndex, find_files, load_or_build, unreadable
from .quarantine import BadSample, Quarantine
from .row_checks import describe, may_name, repeated_rows, require_values, unusable_rows
from .texts import is_utf8

_PROBED = 1000  # rows
# Their code belongs to every index, so the version of the format stands for it (``index_store``).
_SHARED = {f'{__package__}.{name}' for name in ('base', 'construction', 'indexed')}


class MissingData(FileNotFoundError):
    """A folder or file that a data set needs is not there."""


class IndexedDataset(CompletedAfterInit, Dataset):
    """One sample per row of an index that is made once and kept in ``index_dir``; see ``GroundedDataset``.

    The index is opened when the outermost constructor has returned.
    """

    #: Where to get the data, one sentence.
    obtain = ''
    #: Functions or modules whose files, beside the class's own one, decide what its index holds: when one of these
    #: files changes, the index is made anew.
    index_code: tuple[Callable | ModuleType, ...] = ()

    #: Whether the way the index is made rules out that two rows have one ``sample_id``; else all are compared.
    ids_are_unique = False

    #: Whether an empty text in the column ``caption`` stands for none; else such a row is a bad sample.
    captions_may_lack = False

    #: Name of the data set in samples, logs and files.
    source: str = SetOnCompletion()
    #: The bad samples.
    quarantine: Quarantine = SetOnCompletion()
    #: All tables of the index by name.
    tables: dict[str, Table] = SetOnCompletion()
    #: One row per sample.
    index: Table = SetOnCompletion()
    #: Says whether two runs list the same samples, wherever the data lie.
    index_digest: str = SetOnCompletion()

    def __init__(self, data_root: str | Path, repeats: float, max_samples: int | None, optional: bool, seed: int,
                 prepare: Callable | dict | None, name: str | None, index_dir: str | Path,
                 exclude_image_ids: Spec | None = None):
        if not (math.isfinite(repeats) and repeats > 0):
            raise ValueError(f'repeats must be a number above 0, got {repeats}')
        if max_samples is not None and max_samples < 1:
            raise ValueError(f'max_samples must be at least 1, got {max_samples}')
        self.data_root = resolve(data_root)
        self.repeats = repeats
        self.max_samples = max_samples
        self._optional = optional
        self.seed = seed
        self._name = name
        self.index_dir = index_dir
        self.exclude_image_ids = None if exclude_image_ids is None else exclusion(exclude_image_ids)
        if prepare is not None:
            build(prepare)

    # What a subclass provides ---------------------------------------------------------------------------------------

    def default_name(self) -> str:
        return type(self).__name__.removesuffix('Dataset').lower()

    def index_source(self) -> IndexSource:
        """What the index is made from, by default the whole folder. Called at every start, so it must be quick.

        Raises:
            MissingData: through ``require``.
        """
        remedy = f'Put the data there ({self.obtain})' if self.obtain else 'Put the data there'
        return IndexSource(folders=[self.require(self.data_root, 'data_root', remedy)])

    def build_index(self) -> dict[str, Table]:
        """Read what the folder holds, sorted, without opening images: the table ``samples`` and others at will.

        A row that cannot be used is left out and written down with ``self.quarantine.note``. Where a read attribute is
        made from the index, it must come from ``self.tables``: of a stored index this method is not called.
        """
        raise NotImplementedError

    def sample_id(self, row: int) -> str:
        """Name of one row, unique and stable within the source."""
        raise NotImplementedError

    def path(self, row: int) -> Path:
        """The image file of one row (or the file that holds the image)."""
        raise NotImplementedError

    def picture_names(self, row: int) -> set[int | str]:
        """What ``exclude_image_ids`` may call the picture of a row: names without suffix, numbers of COCO."""
        return names_of(self.path(row))

    def remarks(self) -> list[str]:
        """What a look at the folder should know although nothing is wrong, a sentence each."""
        return []

    def load(self, row: int, index: int) -> dict[str, Any]:
        """The sample of ``row``, which position ``index`` shows. Raises ``BadSample``."""
        raise NotImplementedError

    # Helpers for subclasses -----------------------------------------------------------------------------------------

    def require(self, path: Path, argument: str, remedy: str) -> Path:
        """Return ``path``, or raise ``MissingData`` that names it, the argument that led there and what to do."""
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingData(f'{path} does not exist ({type(self).__name__}, from {argument}). {remedy}, or set '
                              'optional=True to go on without this data set') from error
        except PermissionError as error:
            raise unreadable(error) from error
        return path

    def find_files(self, pattern: str, folder: str = '') -> list[str]:
        """Paths of the files whose name fits ``pattern``, at any depth below a folder of ``data_root``: relative to the
        folder, sorted. Hidden files are none. One whose name is not UTF-8 is a bad sample.

        Raises:
            MissingData: there is no such folder.
        """
        root = self.require(self.data_root / folder, 'data_root', f'Put the files {pattern} there')
        return self.only_utf8(find_files(root, pattern), root)

    def only_utf8(self, names: list[str], folder: Path) -> list[str]:
        """The names of files in ``folder`` that an index can hold. One that is not UTF-8 is a bad sample."""
        if is_utf8('/'.join(names)):
            return names
        for name in (each for each in names if not is_utf8(each)):
            self.quarantine.note(name, folder / name, 'its name is not UTF-8: rename the file')
        return [name for name in names if is_utf8(name)]

    def full(self, builder) -> bool:
        """Whether the index already holds ``max_samples`` rows, so that reading may end."""
        return self.max_samples is not None and len(builder) >= self.max_samples

    # Map-style data set ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        rows = len(self.index)
        return rows * int(self.repeats) + len(self._extra_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample. A bad one is replaced by another row, a function of seed and row alone, and quarantined.

        Raises:
            IndexError: outside 0 .. len - 1.
            TooManyBadSamples: see ``Quarantine``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is outside the {len(self)} samples of {self.source}')
        wanted = row = self.row(index)
        attempt = 0
        while True:
            try:
                sample = self.load(row, index)
            except BadSample as error:
                self.quarantine.record(self.sample_id(row), error.path or self.path(row), error.reason)
            else:
                self.quarantine.good()
                return sample
            attempt += 1
            row = seed_for(self.seed, 'substitute', self.source, wanted, attempt) % len(self.index)

    def row(self, index: int) -> int:
        """The row of the table that position ``index`` of the repeated data set shows."""
        whole = len(self.index) * int(self.repeats)
        return index % len(self.index) if index < whole else int(self._extra_rows[index - whole])

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({self.source}: {len(self)} samples, {len(self.index)} distinct, '
                f'data_root={self.data_root})')

    def _draw_extra_rows(self) -> np.ndarray:
        rows = len(self.index)
        count = round(rows * self.repeats) - rows * int(self.repeats)
        if rows and not count and self.repeats < 1:
            count = 1
        if not count:
            return np.zeros(0, np.int64)
        rng = np.random.default_rng(seed_for(self.seed, 'repeats', self.source))
        return np.sort(rng.permutation(rows)[:count])

    # The index ------------------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        self.source = self._name or self.default_name()
        self.quarantine = Quarantine(self.source, root=self.data_root)
        stored = self._open_index()
        self.tables = stored.tables
        self.index = stored.tables['samples']
        self.index_digest = stored.digest
        self._count()
        self._extra_rows = self._draw_extra_rows()

    def _count(self) -> None:
        """Stop if too many are bad. Nothing is stored then: a file may be repaired in a way that is not noticed."""
        self.quarantine.num_samples = len(self.index) + self.quarantine.count
        self.quarantine.check()

    def _open_index(self) -> StoredIndex:
        try:
            source = self.index_source()
            excluded = IndexSource() if self.exclude_image_ids is None else exclusion_source(self.exclude_image_ids)
            identity = dict(max_samples=self.max_samples, code=self._code())
            source = replace(source, files=[*source.files, *excluded.files],
                             arguments=source.arguments | excluded.arguments | identity)
            stored = load_or_build(self.source, source, self._build_index, self.index_dir)
            if not len(stored.tables['samples']):
                raise MissingData(f'{type(self).__name__} found no samples in {self.data_root}: check data_root'
                                  f'{" and exclude_image_ids" if self.exclude_image_ids else ""}, or set optional=True '
                                  'to go on without this data set')
        except MissingData as error:
            if not self._optional:
                raise
            print_log(f'{self.source} is left out (optional=True): {error}', 'current', logging.WARNING)
            return StoredIndex(dict(samples=Table.of(object=[])), '')
        problems = stored.tables['problems']
        for row in range(len(problems)):
            self.quarantine.note(*(problems[name][row] for name in ('sample_id', 'path', 'reason')))
        return stored

    @classmethod
    def _code(cls) -> str:
        """A hash of the class's own files (its module and ``index_code``, and those of its bases) and its name."""
        own = [each for each in cls.mro() if each not in IndexedDataset.mro() and each.__module__ not in _SHARED]
        helpers = [helper for each in own for helper in vars(each).get('index_code', ())]
        files = sorted({Path(inspect.getfile(inspect.unwrap(each))) for each in own + helpers})
        return sha256(b''.join(file.read_bytes() for file in files)).hexdigest() + cls.__qualname__

    def _build_index(self) -> dict[str, Table]:
        self.tables = self.build_index()
        require_values({name: table for name, table in self.tables.items() if name != 'samples'})
        samples = self.tables['samples']
        unusable = unusable_rows(samples, self.captions_may_lack)
        for row, reason in unusable.items():
            self.quarantine.note(describe(samples, row), self.data_root, reason)
        self._keep(samples.without(unusable))
        self._keep(self.index.without(self._excluded_rows()))
        rows = range(0 if self.ids_are_unique else len(self.index))
        repeated = repeated_rows(map(self.sample_id, rows), len(rows))
        for row, first in repeated.items():
            self.quarantine.note(f'{self.sample_id(row)} again (row {row})', self.path(row),
                                 f'row {first} has that name already, for {self.path(first)}')
        self._keep(self.index.without(repeated))
        if self.max_samples is not None:
            self._keep(self.index.head(self.max_samples))
        self._count()
        problems = TableBuilder(sample_id=str, path=str, reason=str)
        for entry in self.quarantine.entries:
            problems.append(**{name: entry[name] for name in problems.kinds})
        tables = self.tables | dict(problems=problems.build())
        del self.tables, self.index  # the stored ones take their place
        return tables

    def _keep(self, samples: Table) -> None:
        """The samples so far, of which ``sample_id`` and ``path`` can be asked."""
        self.tables, self.index = self.tables | dict(samples=samples), samples

    def _excluded_rows(self) -> list[int]:
        """Rows whose picture ``exclude_image_ids`` names. Without that argument pictures of COCO are refused.

        Raises:
            ValueError: there is such a picture.
        """
        if type(self).path is IndexedDataset.path:
            return []  # without files of pictures, or without samples
        if self.exclude_image_ids is None:
            # Most data sets have no text in which COCO's numbers stand; of these a look at some rows is enough.
            rows = self._rows_of_pictures()[0] if may_name(self.tables.values(), COCO_NUMBER) else \
                np.arange(0, len(self.index), max(1, len(self.index) // _PROBED))
            for row in rows.tolist():
                if coco_file_number(self.path(row).name) is not None:
                    raise ValueError(f'{self.source} shows pictures of COCO ({self.path(row)}), of which RefCOCO holds '
                                     f'some out for evaluation: {REMEDY}')
            return []
        excluded = excluded_ids(self.exclude_image_ids)
        if not excluded:
            return []
        rows, picture = self._rows_of_pictures()
        is_out = [not excluded.isdisjoint(self.picture_names(row)) for row in rows.tolist()]
        return np.flatnonzero(np.array(is_out, bool)[picture]).tolist()

    def _rows_of_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """One row of each picture, and for each row the number of its picture among these."""
        if 'image' not in self.index:
            return np.arange(len(self.index)), np.arange(len(self.index))
        return np.unique(self.index['image'], return_index=True, return_inverse=True)[1:]
