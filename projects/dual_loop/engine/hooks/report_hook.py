"""The end of a run: a table in the terminal and a page with curves and pictures."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from dual_loop.visualization.report import write_report
from dual_loop.visualization.summary import (
    SummaryRow, collect_series, print_table, read_scalars, summarise_scalars,
)

from .picture_hook import read_pictures


@HOOKS.register_module()
class ReportHook(Hook):
    """Print first and last values of each loss and write ``work_dir/report.html``."""

    # After every hook that measures, draws or logs.
    priority = 'VERY_LOW'

    @master_only
    def after_train(self, runner) -> None:
        records = read_scalars(Path(runner.log_dir) / 'vis_data' / 'scalars.json')
        records = [record for record in records if 'loop1/loss' in record]
        before, after = (runner.message_hub.runtime_info.get(f'held_out_{m}', {}) for m in ('before', 'after'))
        held_out = [SummaryRow(f'held-out {name}', before[name], after[name]) for name in before if name in after]
        rows = [row for row in summarise_scalars(records) if row.name.startswith(('loop1/', 'loop2/', 'cosine'))]
        print_table(rows + held_out, title='mean of the first and of the last tenth of the steps; held-out masks '
                                           'before and after')
        series = {
            name: values for name, values in collect_series(records).items()
            if name.startswith(('loop1/', 'loop2/', 'cosine', 'grad_norm', 'seconds/', 'teacher_distance', 'lr'))
            and '/' not in name.removeprefix('loop1/').removeprefix('loop2/').removeprefix('seconds/')
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
