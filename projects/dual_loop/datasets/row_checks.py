"""Rows of an index that cannot be samples, whatever the format: values missing, captions empty, names repeated."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute

from .index import Table

_VISIBLE = r'[^\pZ\pC]'  # neither a kind of space nor a control or format character


def unusable_rows(samples: Table) -> dict[int, str]:
    """Row -> what is wrong with it, where a column has no value or ``caption`` no words."""
    found = {}
    for name in samples.values.schema.names:
        for row in _where(pa.compute.is_null(samples.values[name])):
            found[row] = f'it has no valid {name}'
    if 'caption' in samples:
        captions = samples.values['caption']
        for row in _where(pa.compute.invert(pa.compute.match_substring_regex(captions, _VISIBLE))):
            found.setdefault(row, 'the caption is empty')
    return found


def require_values(tables: dict[str, Table]) -> None:
    """Raise ``ValueError`` where a table other than the samples has a missing value, which no sample can be left out
    for."""
    for table, content in tables.items():
        for name in content.values.schema.names:
            for row in _where(pa.compute.is_null(content.values[name])):
                raise ValueError(f'row {row} of the table {table} of an index has no valid {name}')


def repeated_rows(name: Callable[[int], str], count: int) -> Iterator[tuple[int, int]]:
    """(row, first row) of every row with the name of an earlier one, by rows; hashes keep the names out of memory.

    Args:
        name: of a row.
        count: of the rows.
    """
    hashes = np.fromiter((hash(name(row)) for row in range(count)), np.int64, count)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    for row in np.setdiff1d(np.arange(count), first).tolist():
        earlier = int(first[group[row]])
        if name(row) == name(earlier):
            yield row, earlier


def describe(samples: Table, row: int) -> str:
    """A row that has no name of its own, by its number and its first text."""
    texts = (samples.values[name][row].as_py() for name in samples.values.schema.names)
    text = next((each for each in texts if isinstance(each, str) and each), '')
    return f'row {row}' + (f' ({text[:80]})' if text else '')


def _where(condition: pa.ChunkedArray) -> list[int]:
    return np.flatnonzero(condition.fill_null(False).to_numpy()).tolist()
