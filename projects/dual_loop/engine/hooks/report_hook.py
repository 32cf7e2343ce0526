"""A page with curves and pictures from the first steps of a run on, and a table in the terminal at its end."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.registry import HOOKS

from dual_loop.engine.run_facts import duration, facts_of_start, shown_facts, write_facts
from dual_loop.engine.unwrapped import unwrapped
from dual_loop.visualization.report import Report, write_report
from dual_loop.visualization.run_log import SCALARS, Start, joined, read_facts, read_scalars
from dual_loop.visualization.summary import SummaryRow, collect_series, print_table, summarise_scalars
from llava_sam2.paths import resolve, write_whole

from .picture_hook import read_pictures

#: In the work_dir of a run that has come to its end.
FIGURES = 'figures.json'
#: Figures of CycleHook that stand with the held-out ones: the other direction, and whether it is closed.
CYCLE_FIGURES = {'cycle/cider': 'CIDEr of descriptions',
                 'cycle/accuracy_all_four': 'descriptions with all four attributes right',
                 'cycle/accuracy_shape': 'descriptions with the shape right',
                 'cycle/accuracy_new_names': 'new names said right in descriptions',
                 'cycle/unknown_words': 'share of words that no sentence of the demo has',
                 'cycle/generated_iou': 'IoU found from own descriptions',
                 'cycle/no_seg_rate': 'share of answers without [SEG]'}


@HOOKS.register_module()
class ReportHook(Hook):
    """Write ``work_dir/report.html``, of a resumed run from its start, and print first and last values at the end.

    The page is there after the first step with a preview or with a line in the log, and is renewed at every preview and
    at the end. Answer losses are shown above the floor that the drawn wordings set. Held-out masks (HeldOutHook) and
    descriptions, their masks and the share of answers without ``[SEG]`` (CycleHook) stand first, before and after; at
    the end ``work_dir/figures.json`` has them too.

    Args:
        recorded: ``dict(title=..., file=...)`` of an earlier run's ``figures.json``, whose figures at the end stand
            beside this run's. Its date is added to the title. A relative path is one of the checkout.

    Raises:
        ValueError: ``recorded`` is no such file.
    """

    # After every hook that measures, draws or logs.
    priority = 'VERY_LOW'

    def __init__(self, recorded: Mapping[str, str] | None = None):
        self._recorded, self._recorded_title = read_figures(**recorded) if recorded else ({}, '')
        self._facts: dict[str, Any] = {}
        self._has_curves = False
        self._config = ''

    def before_train(self, runner) -> None:
        # Every start logs to a folder of its own. The list of them travels with the checkpoint, so that a resumed run
        # knows its own folders among those of other runs in the work_dir, and the steps that it took back.
        earlier = runner.message_hub.runtime_info.get('log_folders', [])
        runner.message_hub.update_info('log_folders', [*earlier, [Path(runner.log_dir).name, runner.iter]])
        self._has_curves, self._config = False, ''
        self._note_start(runner)

    @master_only
    def _note_start(self, runner) -> None:
        self._facts = facts_of_start(runner.iter)
        write_facts(Path(runner.log_dir), self._facts)

    @master_only
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        due = getattr(runner.train_loop, 'preview', None) is not None
        if not due and not self._has_curves:
            due = any(map(_of_training, _records(Path(runner.log_dir))))
        if due:
            try:
                self.renew(runner, batch_idx + 1)
            except (OSError, ValueError) as error:  # a page is no reason to lose a run
                print_log(f'the report could not be renewed: {error}', 'current', logging.WARNING)

    @master_only
    def after_train(self, runner) -> None:
        report = self.renew(runner, runner.iter)
        records = read_steps(runner.work_dir, runner.message_hub.get_info('log_folders'))
        print_table([row for row in summarise_scalars(above_floor(records, _floor(runner)))
                     if row.name.startswith((*_prefixes(runner), 'cosine'))] + list(report.highlights),
                    title='mean of the first and of the last tenth of the steps; held-out masks and descriptions '
                          'before and after', recorded=self._recorded_title)
        write_figures(Path(runner.work_dir), runner.iter, self._facts, report.highlights)
        print_log(f'pictures and curves: {(Path(runner.work_dir) / "report.html").resolve()}', 'current')

    def renew(self, runner, step: int) -> Report:
        """Write the page as of a step, and say what stands on it."""
        self._facts = write_facts(Path(runner.log_dir), self._facts)
        self._config = self._config or runner.cfg.pretty_text  # takes a second or so
        starts = starts_of(runner.work_dir, runner.message_hub.get_info('log_folders'))
        series = collect_series(above_floor(joined(starts), _floor(runner)))
        self._has_curves = bool(series)
        losses = {}
        for loop in getattr(unwrapped(runner.model), 'loops', {}).values():
            parts = tuple(f'{loop.name}/{name}' for name in ('loss', *loop.losses))
            losses[loop.title] = [name for part in parts for name in series
                                  if name == part or name.startswith(f'{part} above its floor')]
        facts = shown_facts(starts)
        spent = duration(sum(start.facts.get('seconds', 0) for start in starts))
        report = Report(
            title=runner.experiment_name, scalars=series, losses=losses, panels=read_pictures(runner.work_dir),
            highlights=[replace(row, recorded=self._recorded.get(row.name))
                        for row in highlights(runner.message_hub)],
            recorded=self._recorded_title, facts=facts, config=self._config,
            status=f'Step {step} of {runner.max_iters} · {self._facts["card"]} · {spent} · as of '
                   f'{time.strftime("%Y-%m-%d %H:%M:%S")}',
        )
        write_report(Path(runner.work_dir) / 'report.html', report)
        return report


def write_figures(work_dir: Path, step: int, facts: Mapping[str, Any], rows: Sequence[SummaryRow]) -> None:
    """``figures.json``: what stands first on the page, before and after, and on what machine."""
    known = {name: facts[name] for name in ('command', 'commit', 'card', 'processes', 'versions')}
    figures = dict(known, date=time.strftime('%Y-%m-%d'), steps=step, seconds=round(facts['seconds'], 1),
                   before={row.name: row.first for row in rows}, after={row.name: row.last for row in rows})
    write_whole(work_dir / FIGURES, json.dumps(figures, indent=1) + '\n', 'the figures')


def read_figures(title: str, file: str) -> tuple[dict[str, float], str]:
    """The figures at the end of another run, and its title with the date.

    Raises:
        ValueError: the file is not there or no ``figures.json``.
    """
    try:
        found = json.loads(resolve(file).read_text())
        return found['after'], f'{title}, recorded on {found["date"]}'
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'recorded={file!r} of ReportHook is no {FIGURES} of a run ({error}): name one, or leave '
                         'recorded out') from error


def _floor(runner) -> float:
    model = unwrapped(runner.model)
    return getattr(model, 'base', model).text_rows.answer_floor()


def _prefixes(runner) -> tuple[str, ...]:
    return tuple(f'{name}/' for name in getattr(unwrapped(runner.model), 'loops', {}))


def highlights(hub) -> list[SummaryRow]:
    """Held-out figures and those of CycleHook before and after; after is not known before the end."""
    before, after = (hub.runtime_info.get(f'held_out_{moment}', {}) for moment in ('before', 'after'))
    return [SummaryRow(f'held_out/{name}', value, after.get(name), title=f'held-out {name}')
            for name, value in before.items()] + cycle_rows(hub.log_scalars)


def above_floor(records: Sequence[dict], floor: float) -> list[dict]:
    """The records with the answer losses of the loops less what no model can get rid of, and named so."""
    return [{f'{name} above its floor of {floor:.3f}' if name.endswith('/answer') else name:
             value - floor if name.endswith('/answer') else value for name, value in record.items()}
            for record in records]


def cycle_rows(scalars: Mapping[str, HistoryBuffer]) -> list[SummaryRow]:
    """First and last of the figures of CycleHook that the report shows, if the hook ran."""
    histories = ((name, title, scalars[name].data[0]) for name, title in CYCLE_FIGURES.items() if name in scalars)
    return [SummaryRow(name, float(values[0]), float(values[-1]), title=title) for name, title, values in histories]


def read_steps(work_dir: str | Path, log_folders: Sequence[tuple[str, int]]) -> list[dict]:
    """What was logged of one run, in the order of its steps; see :func:`starts_of`, which says what it takes."""
    for (name, start), (_, end) in pairwise(log_folders):
        if start < end and not (file := Path(work_dir) / name / SCALARS).is_file():
            print_log(f'no {file}: the report lacks the steps {start + 1} to {end}', 'current', logging.WARNING)
    return joined(starts_of(work_dir, log_folders))


def starts_of(work_dir: str | Path, log_folders: Sequence[tuple[str, int]]) -> list[Start]:
    """The starts of one run.

    Args:
        work_dir: holds the log folders.
        log_folders: name of each log folder of the run and the step after which it begins.
    """
    folders = [(Path(work_dir) / name, step) for name, step in log_folders]
    return [Start(folder, step, _records(folder), read_facts(folder)) for folder, step in folders]


def _records(folder: Path) -> list[dict]:
    file = folder / SCALARS
    return read_scalars(file) if file.is_file() else []


def _of_training(record: Mapping[str, Any]) -> bool:
    return any(name.endswith('/loss') or name == 'loss' for name in record)
