"""The list of a data set's samples as flat columns, in memory or mapped from a file.

Millions of Python objects cost hundreds of bytes each, and forked workers copy every page that a reference count
touches. A column is one Arrow array: mapped from a file it costs no private memory and all processes share it.
"""

import hashlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_TYPES = {int: pa.int64(), float: pa.float32(), str: pa.large_string()}
_PIECE = 10_000  # rows
_KINDS = {kind: name for name, kind in _TYPES.items()}
_HELD = {int: 'whole numbers of 64 bits', float: 'numbers', str: 'texts in UTF-8'}


class Strings:
    """Immutable list of texts; ``strings[row]`` is a str."""

    def __init__(self, values: pa.LargeStringArray):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> str:
        return self.values[int(row)].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _PIECE):
            yield from self.values[start:start + _PIECE].to_pylist()

    def buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """The lengths of the texts in bytes, (n,) int64, and all texts in UTF-8 one after the other, uint8."""
        _, ends, data = self.values.buffers()
        ends = np.frombuffer(ends, np.int64)[self.values.offset:][:len(self) + 1]
        data = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
        return np.diff(ends), data[ends[0]:ends[-1]]


class Table:
    """Columns of equal length, by name: ``table['area'][row]``.

    Columns of numbers are read-only arrays (int64, float32), columns of texts are ``Strings``.

    Args:
        values: Arrow table with columns of int64, float32 or large_string, and in what is read of it without missing
            values.
        file: where it is mapped from; such a table is pickled as the file's name alone.
    """

    def __init__(self, values: pa.Table, file: Path | None = None):
        # One piece per column, so that each is one array.
        self.values = values if max((column.num_chunks for column in values.columns), default=1) == 1 \
            else values.combine_chunks()
        self.file = file
        self._columns: dict[str, np.ndarray | Strings] = {}

    @classmethod
    def of(cls, **columns) -> 'Table':
        """A table of the given arrays or lists; numbers become int64 or float32.

        In a list that has a text, what is none or cannot be stored as UTF-8 is missing (None); in other lists, what is
        no number of its column. The data set leaves such rows out of its samples and writes them down.
        """
        arrays = {}
        for name, values in columns.items():
            if not isinstance(values, (pa.Array, pa.ChunkedArray)):
                numeric = isinstance(values, np.ndarray) or not any(isinstance(value, str) for value in values)
                values = _numbers(values) if numeric else _texts(values)
            kind = str if pa.types.is_string(values.type) or pa.types.is_large_string(values.type) else \
                float if pa.types.is_floating(values.type) else int
            arrays[name] = values.cast(_TYPES[kind])
        return cls(pa.table(arrays))

    @classmethod
    def open(cls, file: Path) -> 'Table':
        """Map a table that ``write`` wrote."""
        return cls(pa.ipc.open_file(pa.memory_map(str(file))).read_all(), file)

    @classmethod
    def concatenate(cls, tables: Iterable['Table']) -> 'Table':
        """The rows of tables with the same columns, one after the other; there must be at least one table.

        Each is copied before the next one is asked for: a generator never holds all of them.
        """
        tables = iter(tables)
        first = next(tables)
        builder = TableBuilder(**{each.name: _KINDS[each.type] for each in first.values.schema})
        for table in chain([first], tables):
            builder.extend(table)
        pa.default_memory_pool().release_unused()  # it keeps what the pieces took
        return builder.build()

    def write(self, file: Path) -> None:
        """Write it for ``open``: an uncompressed Arrow IPC file, which pandas and others read too."""
        with pa.OSFile(str(file), 'wb') as stream, pa.ipc.new_file(stream, self.values.schema) as writer:
            writer.write_table(self.values)

    def __len__(self) -> int:
        return self.values.num_rows

    def __contains__(self, name: str) -> bool:
        return name in self.values.schema.names

    def __getitem__(self, name: str) -> Any:  # a union of both would be of no use to a type checker
        if name not in self._columns:
            column = self.values.column(name)
            values = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            self._columns[name] = Strings(values) if pa.types.is_large_string(values.type) else values.to_numpy()
        return self._columns[name]

    def head(self, count: int) -> 'Table':
        """The first ``count`` rows."""
        return Table(self.values.slice(0, count))

    def without(self, rows: Collection[int]) -> 'Table':
        """All but some rows."""
        kept = np.ones(len(self), bool)
        kept[list(rows)] = False
        return Table(self.values.filter(pa.array(kept))) if rows else self

    def __reduce__(self):
        return (Table.open, (self.file,)) if self.file else (Table, (self.values,))


class TableBuilder:
    """Collects the rows of a ``Table``.

    Args:
        kinds: type of each column by name: ``int`` (int64), ``float`` (float32) or ``str``.
    """

    def __init__(self, **kinds: type):
        self.kinds = kinds
        self._values = {name: array('f' if kind is float else 'q') for name, kind in kinds.items()}
        self._texts = {name: bytearray() for name, kind in kinds.items() if kind is str}
        for name in self._texts:
            self._values[name].append(0)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, **row: Any) -> None:
        """Add one row; it must name every column. Raises ``ValueError`` for a value that its column cannot hold."""
        if row.keys() != self.kinds.keys():
            raise ValueError(f'a row has the columns {sorted(row)}, the table {sorted(self.kinds)}')
        try:
            for name, value in row.items():
                if name in self._texts:
                    self._texts[name] += value.encode('utf-8')
                    value = len(self._texts[name])
                self._values[name].append(value)
        except (TypeError, OverflowError, AttributeError, UnicodeEncodeError) as error:
            self._cut()
            raise ValueError(f'{value!r} cannot stand in the column {name} of an index, which holds '
                             f'{_HELD[self.kinds[name]]}') from error
        self._rows += 1

    def _cut(self) -> None:
        """Take back a row that was added in part."""
        for name, values in self._values.items():
            del values[self._rows + (name in self._texts):]
        for name, texts in self._texts.items():
            del texts[self._values[name][-1]:]

    def extend(self, table: Table) -> None:
        """Add the rows of a table with the same columns."""
        for name in self.kinds:
            values = table[name]
            if name in self._texts:
                lengths, data = values.buffers()
                values = np.cumsum(lengths) + len(self._texts[name])
                self._texts[name] += data.data
            self._values[name].frombytes(values.view(np.uint8))
        self._rows += len(table)

    def build(self) -> Table:
        """The rows so far. The builder's memory becomes the table's, so it takes no more rows."""
        columns = {}
        for name, kind in self.kinds.items():
            buffers = [None, pa.py_buffer(self._values[name])]
            if kind is str:
                buffers.append(pa.py_buffer(self._texts[name]))
            columns[name] = pa.Array.from_buffers(_TYPES[kind], self._rows, buffers)
        return Table(pa.table(columns))


def _texts(values: Sequence) -> pa.LargeStringArray:
    """A list as an array; in pieces, since Arrow takes three times the room for one long list."""
    missing = np.zeros(len(values), bool)

    def pieces() -> Iterator[Table]:
        for start in range(0, len(values), _PIECE):
            piece = values[start:start + _PIECE]
            try:
                texts = pa.array(piece, _TYPES[str])
            except (pa.ArrowException, UnicodeError):
                texts = pa.array([_stored(each) for each in piece], _TYPES[str])
            missing[start:start + len(piece)] = texts.is_null()
            yield Table(pa.table([texts.fill_null('')], ['text']))

    whole = Table.concatenate(pieces())['text'].values
    if not missing.any():
        return whole
    return pa.Array.from_buffers(_TYPES[str], len(whole), [pa.array(~missing).buffers()[1], *whole.buffers()[1:]])


def _stored(value: object) -> str | None:
    try:
        return value if isinstance(value, str) and value.encode('utf-8') is not None else None
    except UnicodeEncodeError:
        return None


def _numbers(values: Sequence) -> pa.Array:
    """A list of numbers as an array. What is none, or a whole number of more than 64 bits, is missing."""
    try:
        numbers = pa.array(values)
        if pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type) or pa.types.is_boolean(numbers.type):
            return numbers
    except (pa.ArrowException, OverflowError):
        pass
    kind = float if any(isinstance(value, float) for value in values) else int
    return pa.array([value if isinstance(value, (int, kind)) and abs(value) < 2**63 else None for value in values],
                    _TYPES[kind])


def digest(tables: dict[str, Table]) -> str:
    """sha256 of the content of tables: equal wherever the same data lie."""
    total = hashlib.sha256()
    for name, table in sorted(tables.items()):
        for column in sorted(table.values.schema.names):
            total.update(f'{name}.{column}:{len(table)};'.encode())
            values = table[column]
            for part in values.buffers() if isinstance(values, Strings) else (values,):
                total.update(np.ascontiguousarray(part).data)
    return total.hexdigest()
