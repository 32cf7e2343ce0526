"""Pictures of what loop 1 sees, says and finds."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from dual_loop.visualization.overlay import panel
from dual_loop.visualization.report import ReportPanel

INDEX = 'index.jsonl'


@HOOKS.register_module()
class PictureHook(Hook):
    """Write image 1 + mask, caption, image 2 + predicted and true mask of some rows whenever the loop has a preview.

    The pictures go to ``work_dir/pictures`` and a line for each to ``pictures/index.jsonl``; the report shows them.

    Args:
        rows: rows of a batch to show at most.
        first: names of data sets whose rows come first, so that a few of one's own are not lost among others.
    """

    # Before the report.
    priority = 'LOW'

    def __init__(self, rows: int = 4, first: Sequence[str] = ()):
        self.rows, self.first = rows, first

    @master_only
    def before_train(self, runner) -> None:
        index = Path(runner.work_dir) / 'pictures' / INDEX
        if index.is_file():  # steps to come are of an earlier run in this folder, or were taken back
            lines = index.read_text(encoding='utf-8').splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)['step'] <= runner.iter]
            index.write_text(''.join(kept), encoding='utf-8')

    @master_only
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        preview = runner.train_loop.preview
        if preview is None:
            return
        folder = Path(runner.work_dir) / 'pictures'
        folder.mkdir(parents=True, exist_ok=True)
        data, step = preview['data'], batch_idx + 1
        lines = []
        order = sorted(range(len(preview['captions'])), key=lambda row: data['sources'][row] not in self.first)
        for number, row in enumerate(order[:self.rows]):
            predicted, target = preview['predicted'][row], data['masks2'][row].cpu()
            union = int((predicted | target).sum())
            iou = int((predicted & target).sum()) / union if union else 1.0
            picture = panel(
                data['g_pixel_values'][data['image1'][row]].cpu(),
                data['masks1'][row].cpu(),
                preview['captions'][row],
                data['g_pixel_values'][data['image2'][row]].cpu(),
                predicted,
                target,
                source=data['sources'][row],
                iou=iou,
            )
            name = f'step{step:06d}_{number}.png'
            picture.save(folder / name)
            lines.append(json.dumps(dict(
                step=step, image=name, caption=preview['captions'][row], sample_id=data['sample_ids'][row],
                source=data['sources'][row], iou=iou,
            )) + '\n')
        with open(folder / INDEX, 'a', encoding='utf-8') as index:
            index.writelines(lines)


def read_pictures(work_dir: str | Path) -> list[ReportPanel]:
    """The pictures that were written under ``work_dir``, in the order of their steps."""
    index = Path(work_dir) / 'pictures' / INDEX
    if not index.is_file():
        return []
    entries = [json.loads(line) for line in index.read_text(encoding='utf-8').splitlines()]
    return [ReportPanel(**entry | dict(image=index.parent / entry['image'])) for entry in entries]
