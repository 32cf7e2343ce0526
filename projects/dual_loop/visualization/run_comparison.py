"""Curves of one or several runs, what their settings differ in, and first, last and best values: a page and a PNG."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape as plain

from llava_sam2.paths import writing

from .curves import Series, colour_class, reduce_points, smooth
from .html_page import address, breakable, write_page
from .palette import CURVES
from .quantities import LESS, explain
from .report import card
from .run_log import CONFIG, joined, read_starts
from .summary import SummaryRow, collect_series, titled_table

#: Settings that differ between any two runs.
_BY_THE_WAY = ('work_dir', 'experiment_name', 'launcher', 'local_rank', 'resume')


@dataclass(frozen=True)
class Run:
    """A run as its work_dir shows it.

    Attributes:
        name: tells it from the others.
        folder: its work_dir.
        series: name -> (steps, values) of all that it logged.
        settings: nested key -> value of its config, as text; empty if there is none.
        starts: how often it was started.
    """

    name: str
    folder: Path
    series: dict[str, tuple[list[int], list[float]]]
    settings: dict[str, str]
    starts: int

    def best(self, name: str) -> tuple[float, int] | None:
        """The best logged value of a figure and its step; None where neither less nor more of it is better."""
        better = explain(name).better
        finite = [(value, step) for step, value in zip(*self.series.get(name, ((), ()))) if value == value]
        if better is None or not finite:
            return None
        return (min if better == LESS else max)(finite, key=lambda each: each[0])


def read_runs(folders: Sequence[Path], notes: list[str]) -> list[Run]:
    """Read work_dirs.

    Args:
        folders: of the runs.
        notes: gets a line for each thing that had to be left out.

    Raises:
        NoRun: see :func:`.run_log.read_starts`.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = []
    for name, folder in zip(names, folders):
        starts = read_starts(folder, notes)
        runs.append(Run(name, folder, collect_series(joined(starts)), _settings(starts[-1].folder / CONFIG, notes),
                        len(starts)))
    return runs


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Setting -> its value in each run that has a config, of those that are not the same; '—' where it is not set."""
    known = [run.settings for run in runs if run.settings]
    keys = sorted({key for settings in known for key in settings})
    values = {key: [settings.get(key, '—') for settings in known] for key in keys
              if key.split('.')[0] not in _BY_THE_WAY}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def main_figures(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Names of the figures of which less or more is better, losses first, and of all others.

    Seconds, and what had one value all the time, are among the others.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.series))
    main = [name for name in names if explain(name).better and not name.startswith('seconds/')
            and name not in ('time', 'data_time')
            and len({value for run in runs for value in run.series.get(name, ((), ()))[1]}) > 1]
    return sorted(main, key=lambda name: not name.endswith('loss')), [name for name in names if name not in main]


def write_comparison(runs: Sequence[Run], folder: Path, title: str) -> tuple[Path, Path]:
    """Write ``index.html`` and ``curves.png`` into a folder, which is made; returns their paths."""
    main, others = main_figures(runs)
    picture = folder / 'curves.png'
    with writing('the curves', picture, 'Choose another --out'):
        folder.mkdir(parents=True, exist_ok=True)
        draw(runs, main or others).savefig(picture, dpi=110, facecolor='white')
    legend = ''.join(f'<span class="chip"><i class="{colour_class(number)} swatch"></i>{breakable(run.name)}: '
                     f'{_extent(run)}</span>{_link(run, folder)}' for number, run in enumerate(runs))
    body = [f'<h1>{breakable(title)}</h1>', f'<p class="legend">{legend}</p>']
    if len(runs) > 1:
        body += ['<h2>Settings that differ</h2>', _differences(runs)]
    body += ['<h2>First, last and best</h2>', _table(runs, main or others),
             '<p class="legend">First and last are the means of the first and the last tenth of what was logged, best '
             'is a single logged value. The curves are faint as logged and bold as moving averages. The same as a '
             f'picture: <a href="{address(picture, folder)}">curves.png</a>.</p>',
             '<h2>Over the steps</h2>', _cards(runs, main or others, 'large')]
    if main and others:
        body.append(f'<details><summary>Other figures</summary>{_cards(runs, others, "")}</details>')
    return write_page(folder / 'index.html', title, body), picture


def draw(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """The curves as a figure for a file: a field for each name, a colour for each run."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.6 * rows + 0.5), layout='constrained')
    for name, axes in zip(names, figure.subplots(rows, columns, squeeze=False).flat):
        for number, run in enumerate(runs):
            if name in run.series:
                points = reduce_points(*run.series[name])
                look: dict[str, Any] = dict(color=CURVES[number % len(CURVES)][0],
                                            linestyle='--' if number >= len(CURVES) else '-')
                dot = dict(marker='o', markersize=3) if len(points) == 1 else {}
                axes.plot(*zip(*points), alpha=0.3, linewidth=1, **look, **dot)
                axes.plot(*zip(*smooth(points)), linewidth=1.8, label=run.name, **look)
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
    for axes in list(figure.axes)[len(names):]:
        axes.set_visible(False)
    labels = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels())}
    figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=3, frameon=False, fontsize=9)
    return figure


def print_runs(runs: Sequence[Run], console: Console | None = None) -> None:
    """Print differing settings and first, last and best values in the terminal."""
    console = console or Console()
    if differences := differing(runs):
        table = titled_table('settings that differ')
        for column in ('setting', *(run.name for run in runs if run.settings)):
            table.add_column(plain(column), overflow='fold')
        for key, values in differences.items():
            table.add_row(plain(key), *map(plain, values))
        console.print(table)
    main, others = main_figures(runs)
    table = titled_table('first and last tenth, and best')
    table.add_column('quantity', overflow='fold')
    table.add_column('run', overflow='fold')
    for column in ('first', 'last', 'best', 'at step'):
        table.add_column(column, justify='right', no_wrap=True)
    for name in main or others:
        for run in runs:
            if name in run.series:
                row, best = SummaryRow.of(name, run.series[name][1]), run.best(name)
                table.add_row(plain(name), plain(run.name), f'{row.first:.4g}', f'{row.last:.4g}',
                              *(('', '') if best is None else (f'{best[0]:.4g}', str(best[1]))))
    console.print(table)


def flat_settings(config: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Nested key and value of every setting of a config."""
    if isinstance(config, Mapping) and config:
        for name, value in config.items():
            yield from flat_settings(value, f'{key}.{name}' if key else str(name))
    elif isinstance(config, (list, tuple)) and any(isinstance(each, (Mapping, list, tuple)) for each in config):
        for number, value in enumerate(config):
            yield from flat_settings(value, f'{key}.{number}')
    else:
        yield key, str(config)


def _settings(file: Path, notes: list[str]) -> dict[str, str]:
    if not file.is_file():
        notes.append(f'there is no {file}: the settings of this run are not compared')
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return dict(flat_settings(Config.fromfile(file, import_custom_modules=False).to_dict()))
    except Exception as error:  # whatever a file of Python code may raise
        why = ' '.join(str(error).split())
        notes.append(f'{file} cannot be read ({why}): the settings of this run are not compared')
        return {}


def _extent(run: Run) -> str:
    steps = max(step for series in run.series.values() for step in series[0]) if run.series else 0
    return f'{steps} steps' + (f' in {run.starts} starts' if run.starts > 1 else '')


def _link(run: Run, folder: Path) -> str:
    report = run.folder / 'report.html'
    return f'<a href="{address(report, folder)}">report</a> ' if report.is_file() else ''


def _differences(runs: Sequence[Run]) -> str:
    found = differing(runs)
    known = [run for run in runs if run.settings]
    if not found:
        return f'<p class="none">{"None." if len(known) > 1 else "Not known."}</p>'
    head = ''.join(f'<th>{breakable(run.name)}</th>' for run in known)
    lines = ''.join(f'<tr><th>{breakable(key)}</th>{"".join(f"<td>{breakable(value)}</td>" for value in values)}</tr>'
                    for key, values in found.items())
    return (f'<div class="card scroll"><table class="settings"><tr><th>setting</th>{head}</tr>{lines}</table></div>')


def _table(runs: Sequence[Run], names: Sequence[str]) -> str:
    lines = []
    for name in names:
        for run in runs:
            if name not in run.series:
                continue
            row, best = SummaryRow.of(name, run.series[name][1]), run.best(name)
            of_run = f'<td>{breakable(run.name)}</td>' if len(runs) > 1 else ''
            found = '' if best is None else f'{best[0]:.4g} (step {best[1]})'
            lines.append(f'<tr><th>{breakable(name)}</th>{of_run}<td>{row.first:.4g}</td><td>{row.last:.4g}</td>'
                         f'<td>{found}</td></tr>')
    head = ''.join(f'<th>{each}</th>' for each in ('quantity', *['run'] * (len(runs) > 1), 'first', 'last', 'best'))
    return f'<div class="card scroll"><table class="values"><tr>{head}</tr>{"".join(lines)}</table></div>'


def _cards(runs: Sequence[Run], names: Sequence[str], size: str) -> str:
    def of(name: str) -> str:
        there: dict[str, Series] = {colour_class(number): run.series[name] for number, run in enumerate(runs)
                                    if name in run.series}
        rows = (SummaryRow.of(name, values) for _, values in there.values())
        figures = ' '.join(f'<i class="{css} swatch"></i><span>{row.first:.3g} →</span> {row.last:.3g}'
                           for css, row in zip(there, rows))
        return card(name, there, figures)

    return f'<div class="grid {size}">{"".join(map(of, names))}</div>'
