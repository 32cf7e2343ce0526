"""What the data sets of a run give to it: how much of each loop comes from which source."""

import io
from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

_COLUMNS = ('loop', 'source', 'samples', 'repeats', 'share', 'tokens', 'share of tokens')


def source_table(datasets: Mapping[str, Dataset]) -> str:
    """The sources of each loop as a table in plain text.

    ``samples`` counts one epoch of the loop, repeats included, and ``share`` is the part of them in per cent.
    ``tokens`` is the mean of ``modality_length``. What a data set does not tell is '-'; one without samples is left
    out of training and says so.

    Args:
        datasets: data set of each loop by the loop's name; torch's and XTuner's ``ConcatDataset`` may be nested.
    """
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify='left' if column in ('loop', 'source') else 'right', no_wrap=True)
    for loop, dataset in datasets.items():
        for row in _rows(list(parts(dataset))):
            table.add_row(loop, *row)
    text = io.StringIO()
    Console(file=text, width=500, color_system=None, markup=False).print(table)
    return '\n'.join(line.rstrip() for line in text.getvalue().splitlines())


def parts(dataset: Dataset) -> Iterator[Dataset]:
    """The single data sets that a concatenation is made of, in order."""
    if not hasattr(dataset, 'datasets'):
        yield dataset
    for part in getattr(dataset, 'datasets', ()):
        yield from parts(part)


def _rows(sources: list[Dataset]) -> Iterator[tuple[str, ...]]:
    samples = [len(source) for source in sources]
    tokens = [_total_tokens(source) for source in sources]
    for source, count, total in zip(sources, samples, tokens):
        repeats = getattr(source, 'repeats', None)
        yield (getattr(source, 'source', '-') + ('' if count else ' (left out)'), f'{count:,}',
               '-' if repeats is None else f'{repeats:g}', _share(count, samples),
               '-' if total is None or not count else f'{total / count:.1f}', _share(total, tokens))


def _total_tokens(source: Dataset) -> int | None:
    lengths = getattr(source, 'modality_length', None)
    return None if lengths is None else int(np.asarray(lengths, dtype=np.int64).sum())


def _share(part: int | None, whole: list[int | None]) -> str:
    """``part`` of the sum in per cent; '-' where that is not known."""
    return '-' if None in whole or not sum(whole) else f'{part / sum(whole):.1%}'
