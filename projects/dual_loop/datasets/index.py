"""The list of a data set's samples as flat columns, in memory or mapped from a file.

Millions of Python objects cost hundreds of bytes each, and forked workers copy every page that a reference count
touches. A column is one Arrow array: mapped from a file it costs no private memory and all processes share it.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_TYPES = {int: pa.int64(), float: pa.float32(), str: pa.large_string()}
_PIECE = 10_000  # rows
_KINDS = {kind: name for name, kind in _TYPES.items()}


class Strings:
    """Immutable list of texts; ``strings[row]`` is a str."""

    def __init__(self, values: pa.LargeStringArray):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> str:
        return self.values[int(row)].as_py()

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
        values: Arrow table with columns of int64, float32 or large_string and without missing values.
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
        """A table of the given arrays or lists; numbers become int64 or float32."""
        arrays = {}
        for name, values in columns.items():
            if not isinstance(values, (pa.Array, pa.ChunkedArray)):
                values = _texts(values) if len(values) and isinstance(values[0], str) else pa.array(values)
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
        """Add one row; it must name every column."""
        if row.keys() != self.kinds.keys():
            raise ValueError(f'a row has the columns {sorted(row)}, the table {sorted(self.kinds)}')
        for name, value in row.items():
            if name in self._texts:
                self._texts[name] += value.encode('utf-8')
                value = len(self._texts[name])
            self._values[name].append(value)
        self._rows += 1

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


def _texts(values: Sequence[str]) -> pa.LargeStringArray:
    """A list as an array; in pieces, since Arrow takes three times the room for one long list."""
    pieces = (pa.array(values[start:start + _PIECE], _TYPES[str]) for start in range(0, len(values), _PIECE))
    return Table.concatenate(Table(pa.table([piece], ['text'])) for piece in pieces)['text'].values


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
