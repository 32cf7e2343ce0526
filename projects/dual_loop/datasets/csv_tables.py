"""Long tables of comma-separated values, piece by piece, of which a damaged row costs only itself."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

_MOST_SHOWN = 80  # characters of a row


def read_csv(path: Path, texts: Sequence[str], numbers: Sequence[str], bad: Callable[[str, str], None]
             ) -> Iterator[pa.RecordBatch]:
    """The named columns of a table, the first piece empty: texts, and numbers (float64).

    A number that is missing, or is none, is null, and so are those of a column that is not there.

    Args:
        path: the table.
        texts, numbers: names of columns.
        bad: called with the row and what is wrong for each row that is left out, since it has another number of columns
            than the table or lacks one of ``texts``.

    Raises:
        ValueError: not such a table, or one without one of the columns ``texts``.
    """
    def refuse(row: pa.csv.InvalidRow) -> str:
        bad(row.text[:_MOST_SHOWN], f'the row has {row.actual_columns} columns, the table {row.expected_columns}')
        return 'skip'

    try:
        skip = pa.csv.ParseOptions(invalid_row_handler=lambda row: 'skip')
        names = pa.csv.open_csv(path, parse_options=skip).schema.names
        if absent := [name for name in texts if name not in names]:
            raise ValueError(f'{path}: the table has no column {", ".join(absent)}; download it again')
        # As bytes first: one text that is not UTF-8, or one number that is none, would stop the reader.
        options = pa.csv.ConvertOptions(column_types=dict.fromkeys([*texts, *numbers], pa.large_binary()),
                                        include_columns=[*texts, *numbers], include_missing_columns=True,
                                        strings_can_be_null=True, null_values=[''])
        types = [*((name, pa.large_string()) for name in texts), *((name, pa.float64()) for name in numbers)]
        schema = pa.schema(types)
        yield pa.RecordBatch.from_pylist([], schema)
        for part in pa.csv.open_csv(path, convert_options=options,
                                    parse_options=pa.csv.ParseOptions(invalid_row_handler=refuse)):
            columns = [_converted(part[name], kind) for name, kind in types]
            piece = pa.RecordBatch.from_arrays(columns, schema=schema)
            yield piece.filter(pa.array(_has_all(part, piece, texts, bad)))
    except pa.ArrowInvalid as error:
        raise ValueError(f'{path} is not a table of comma-separated values ({error}); download it again') from error


def _has_all(part: pa.RecordBatch, piece: pa.RecordBatch, texts: Sequence[str], bad: Callable[[str, str], None]
             ) -> np.ndarray:
    """(rows,) bool, whether a row has all texts."""
    missing = np.stack([piece[name].is_null().to_numpy(zero_copy_only=False) for name in texts])
    lacking = np.any(missing, axis=0)
    for row in np.flatnonzero(lacking).tolist():
        shown = ','.join((part[name][row].as_py() or b'').decode('utf-8', 'backslashreplace') for name in texts)
        wrong = [name for name, lacks in zip(texts, missing[:, row]) if lacks]
        bad(shown[:_MOST_SHOWN], f'the row has no valid {", ".join(wrong)}')
    return ~lacking


def _converted(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Bytes as texts or numbers; what is none is null."""
    try:
        text = values.cast(pa.large_string())
    except pa.ArrowInvalid:
        text = pa.array([_decoded(value) for value in values.to_pylist()], pa.large_string())
    if not pa.types.is_floating(kind):
        return text
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return pa.array([_number(value) for value in text.to_pylist()], kind)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode('utf-8')
    except UnicodeDecodeError:
        return None


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
