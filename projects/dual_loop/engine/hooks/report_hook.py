"""The end of a run: a table in the terminal and a page with curves and pictures."""

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.registry import HOOKS

from dual_loop.engine.unwrapped import unwrapped
from dual_loop.visualization.report import write_report
from dual_loop.visualization.summary import (
    SummaryRow,
    collect_series,
    print_table,
    read_scalars,
    summarise_scalars,
)

from .picture_hook import read_pictures

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
    """Print first and last values of each loss and write ``work_dir/report.html``, of a resumed run from its start.

    Answer losses are shown above the floor that the drawn wordings set. Held-out masks (HeldOutHook) and descriptions,
    their masks and the share of answers without ``[SEG]`` (CycleHook) stand first, before and after.
    """

    # After every hook that measures, draws or logs.
    priority = 'VERY_LOW'

    def before_train(self, runner) -> None:
        # Every start logs to a folder of its own. The list of them travels with the checkpoint, so that a resumed run
        # knows its own folders among those of other runs in the work_dir, and the steps that it took back.
        earlier = runner.message_hub.runtime_info.get('log_folders', [])
        runner.message_hub.update_info('log_folders', [*earlier, [Path(runner.log_dir).name, runner.iter]])

    @master_only
    def after_train(self, runner) -> None:
        model = unwrapped(runner.model)
        records = above_floor(read_steps(runner.work_dir, runner.message_hub.get_info('log_folders')),
                              getattr(model, 'base', model).text_rows.answer_floor())
        before, after = (runner.message_hub.runtime_info.get(f'held_out_{m}', {}) for m in ('before', 'after'))
        held_out = [SummaryRow(f'held-out {name}', before[name], after[name]) for name in before if name in after]
        held_out += cycle_rows(runner.message_hub.log_scalars)
        loops = tuple(f'{name}/' for name in getattr(model, 'loops', {}))
        rows = [row for row in summarise_scalars(records) if row.name.startswith((*loops, 'cosine'))]
        print_table(rows + held_out, title='mean of the first and of the last tenth of the steps; held-out masks '
                                           'and descriptions before and after')
        series = {
            name: values for name, values in collect_series(records).items()
            if name.startswith((*loops, 'seconds/'))
            or name.startswith(('cosine', 'grad_norm', 'teacher_distance', 'lr')) and '/' not in name
        }
        page = write_report(
            Path(runner.work_dir) / 'report.html',
            title=f'{runner.experiment_name}',
            panels=read_pictures(runner.work_dir),
            summary_table=rows,
            scalars=series,
            highlights=held_out,
        )
        print_log(f'pictures and curves: {page.resolve()}', 'current')


def above_floor(records: Sequence[dict], floor: float) -> list[dict]:
    """The records with the answer losses of the loops less what no model can get rid of, and named so."""
    return [{f'{name} above its floor of {floor:.3f}' if name.endswith('/answer') else name:
             value - floor if name.endswith('/answer') else value for name, value in record.items()}
            for record in records]


def cycle_rows(scalars: Mapping[str, HistoryBuffer]) -> list[SummaryRow]:
    """First and last of the figures of CycleHook that the report shows, if the hook ran."""
    histories = ((title, scalars[name].data[0]) for name, title in CYCLE_FIGURES.items() if name in scalars)
    return [SummaryRow(title, float(values[0]), float(values[-1])) for title, values in histories]


def read_steps(work_dir: str | Path, log_folders: Sequence[tuple[str, int]]) -> list[dict]:
    """What was logged of the training steps of one run, in their order.

    Args:
        work_dir: holds the log folders.
        log_folders: name of each log folder of the run and the step after which it begins. Its records reach up to
            the step after which the next one begins; what it has of later steps was lost with them.
    """
    records = []
    for (name, start), (_, end) in pairwise([*log_folders, ('', float('inf'))]):
        file = Path(work_dir) / name / 'vis_data' / 'scalars.json'
        if file.is_file():
            steps = [record for record in read_scalars(file) if any(name.endswith('/loss') for name in record)]
            records += [record for record in steps if start < record['step'] <= end]
        elif start < end < float('inf'):
            print_log(f'no {file}: the report lacks the steps {start + 1} to {end}', 'current', logging.WARNING)
    return records
