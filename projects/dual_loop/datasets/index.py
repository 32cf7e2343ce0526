"""The list of a data set's samples as flat columns.

Millions of Python objects cost hundreds of bytes each, and forked workers copy every page that a reference count
touches. A column is one array, so workers share it. This is the one place to change for indexes on disk.
"""

from array import array

import numpy as np


class Strings:
    """Immutable list of texts in one buffer.

    Args:
        data: (bytes,) uint8, all texts in UTF-8 one after the other.
        ends: (n,) int64, where each text ends.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray):
        self.data = data
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:
        start = self.ends[row - 1] if row else 0
        return self.data[start:self.ends[row]].tobytes().decode('utf-8')

    def head(self, count: int) -> 'Strings':
        ends = self.ends[:count]
        return Strings(self.data[:ends[-1] if len(ends) else 0], ends)


class Table:
    """Columns of equal length, by name: ``table['area'][row]``. Numbers are arrays, texts ``Strings``."""

    def __init__(self, columns: dict[str, np.ndarray | Strings]):
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> np.ndarray | Strings:
        return self.columns[name]

    def head(self, count: int) -> 'Table':
        """The first ``count`` rows."""
        return Table({name: column.head(count) if isinstance(column, Strings) else column[:count]
                      for name, column in self.columns.items()})


class TableBuilder:
    """Collects the rows of a ``Table``.

    Args:
        kinds: type of each column by name: ``int`` (int64), ``float`` (float32) or ``str``.
    """

    def __init__(self, **kinds: type):
        self.kinds = kinds
        self._values = {name: array({int: 'q', float: 'f', str: 'q'}[kind]) for name, kind in kinds.items()}
        self._texts = {name: bytearray() for name, kind in kinds.items() if kind is str}

    def __len__(self) -> int:
        return len(next(iter(self._values.values())))

    def append(self, **row: int | float | str) -> None:
        """Add one row; it must name every column."""
        if row.keys() != self.kinds.keys():
            raise ValueError(f'a row has the columns {sorted(row)}, the table {sorted(self.kinds)}')
        for name, value in row.items():
            if name in self._texts:
                self._texts[name] += value.encode('utf-8')
                value = len(self._texts[name])
            self._values[name].append(value)

    def build(self) -> Table:
        columns = {}
        for name, values in self._values.items():
            # np.array copies, also an empty one, which frombuffer would refuse.
            numbers = np.array(values, dtype=np.float32 if values.typecode == 'f' else np.int64)
            columns[name] = Strings(np.array(self._texts[name], dtype=np.uint8), numbers) if name in self._texts \
                else numbers
        return Table(columns)
