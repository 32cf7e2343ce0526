"""Rows of an index that cannot be samples, whatever the format: values missing, captions empty, names repeated."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute

from .index import Table

_VISIBLE = r'[^\pZ\pC]'  # neither a kind of space nor a control or format character


def unusable_rows(samples: Table, captions_may_lack: bool = False) -> dict[int, str]:
    """Row -> what is wrong with it, where a column has no value or ``caption`` no words.

    With ``captions_may_lack`` an empty text in ``caption`` stands for none.
    """
    found = {}
    for name in samples.values.schema.names:
        for row in _where(pa.compute.is_null(samples.values[name])):
            found[row] = f'it has no valid {name}'
    if 'caption' in samples:
        captions = samples.values['caption']
        wordless = pa.compute.invert(pa.compute.match_substring_regex(captions, _VISIBLE))
        if captions_may_lack:
            wordless = pa.compute.and_(wordless, pa.compute.not_equal(captions, ''))
        for row in _where(wordless):
            found.setdefault(row, 'the caption is empty')
    return found


def require_values(tables: dict[str, Table]) -> None:
    """Raise ``ValueError`` where a table other than the samples has a missing value, which no sample can be left out
    for."""
    for table, content in tables.items():
        for name in content.values.schema.names:
            for row in _where(pa.compute.is_null(content.values[name])):
                raise ValueError(f'row {row} of the table {table} of an index has no valid {name}; texts, and so '
                                 'names of files, must be UTF-8')


def repeated_rows(names: Iterable[str], count: int) -> dict[int, int]:
    """Row -> first row of the same name, of every row but the first.

    Names are equal when their 64 bits of hash are, so that a million of them need not be kept.

    Args:
        names: of the rows.
        count: their number.
    """
    hashes = np.fromiter(map(hash, names), np.int64, count)
    order = np.argsort(hashes, kind='stable')
    is_first = np.r_[True, np.diff(hashes[order]) != 0][:count]
    first = order[is_first][np.cumsum(is_first) - 1]
    return dict(sorted(zip(order[~is_first].tolist(), first[~is_first].tolist())))


def may_name(samples: Iterable[Table], pattern: str) -> bool:
    """Whether some text of the tables has a part that fits the pattern."""
    return any(pa.compute.any(pa.compute.match_substring_regex(column, pattern)).as_py()
               for table in samples for column in table.values.columns if pa.types.is_large_string(column.type))


def describe(samples: Table, row: int) -> str:
    """A row that has no name of its own, by its number and its first text."""
    texts = (samples.values[name][row].as_py() for name in samples.values.schema.names)
    text = next((each for each in texts if isinstance(each, str) and each), '')
    return f'row {row}' + (f' ({text[:80]})' if text else '')


def _where(condition: pa.ChunkedArray) -> list[int]:
    return np.flatnonzero(condition.fill_null(False).to_numpy()).tolist()
