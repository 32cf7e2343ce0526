"""What the logged numbers did over a run: first against last, as rows and as a table in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

STEP_KEYS = ('step', 'iter')
NOT_SCALARS = {*STEP_KEYS, 'epoch'}


@dataclass(frozen=True)
class SummaryRow:
    """One quantity at the beginning and at the end.

    Attributes:
        name: in the log.
        first: value at the beginning.
        last: at the end; None if it is not known yet.
        title: for readers; the name by default.
        recorded: at the end of another run, that this one is held against.
    """

    name: str
    first: float
    last: float | None
    title: str = ''
    recorded: float | None = None

    def __post_init__(self):
        if not self.title:
            object.__setattr__(self, 'title', self.name)

    @classmethod
    def of(cls, name: str, values: Sequence[float]) -> 'SummaryRow':
        """The mean of the first and of the last tenth of a series (at least one value each); a NaN in them shows."""
        tenth = max(1, len(values) // 10)
        return cls(name, fmean(values[:tenth]), fmean(values[-tenth:]))

    @property
    def change(self) -> str:
        """``last - first`` with its sign, and in per cent of ``first`` where no sign is in play: '-0.42 (-60 %)'."""
        difference = self.last - self.first
        share = f' ({100 * difference / self.first:+.0f} %)' if self.first > 0 and self.last >= 0 else ''
        return f'{difference:+.3g}{share}'


def collect_series(records: Iterable[Mapping]) -> dict[str, tuple[list[int], list[float]]]:
    """Turn log records into one series per quantity: name -> (steps, values), in the order of the records.

    A record is one line of the log, such as ``dict(step=20, loss=0.7, lr=1e-4)``. It needs ``step`` or ``iter`` and
    need not hold every quantity; what is not a number is left out, and so are step, iter and epoch.
    """
    series: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        step = next((record[key] for key in STEP_KEYS if key in record), None)
        if step is None:
            raise ValueError(f"a log record needs 'step' or 'iter', got the keys {sorted(map(str, record))}")
        for name, value in record.items():
            if name not in NOT_SCALARS and isinstance(value, (int, float)) and not isinstance(value, bool):
                steps, values = series.setdefault(name, ([], []))
                steps.append(int(step))
                values.append(float(value))
    return series


def summarise_scalars(records: Iterable[Mapping]) -> list[SummaryRow]:
    """The first and last tenth of each series, see :meth:`SummaryRow.of`."""
    return [SummaryRow.of(name, values) for name, (_, values) in collect_series(records).items()]


def titled_table(title: str, *, caption: str = '') -> Table:
    """An empty table for the terminal; narrow, so that names stay whole in 80 columns."""
    return Table(title=escape(title), caption=escape(caption), title_justify='left', caption_justify='left',
                 header_style='bold', box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def print_table(rows: Sequence[SummaryRow], title: str = 'first and last tenth of the run',
                console: Console | None = None, recorded: str = '') -> None:
    """Print rows as a table in the terminal, with a column of the other run, ``recorded``, where there is one."""
    table = titled_table(title, caption=recorded and f'other run: {recorded}')
    table.add_column('quantity')
    for column in ('first', 'last', 'change', *(['other run'] if recorded else [])):
        table.add_column(column, justify='right', no_wrap=True)
    for row in rows:
        other = [] if not recorded else [''] if row.recorded is None else [f'{row.recorded:.4g}']
        table.add_row(escape(row.title), f'{row.first:.4g}', f'{row.last:.4g}', row.change, *other)
    (console or Console()).print(table)
