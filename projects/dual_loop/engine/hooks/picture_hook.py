"""Pictures of what loop 1 sees, says and finds."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from PIL import Image
from torch import Tensor

from dual_loop.engine.unwrapped import unwrapped
from dual_loop.visualization.marked_text import marked
from dual_loop.visualization.outline import at_height, outlined_at
from dual_loop.visualization.palette import PREDICTED_COLOUR, PROMPT_COLOUR, TARGET_COLOUR
from dual_loop.visualization.report import ReportPanel
from llava_sam2.paths import write_whole

INDEX = 'index.jsonl'
#: Of the pictures, in pixels.
HEIGHT = 256
#: What the texts of a row are, by the names that the loop gives their tokens.
TEXTS = dict(teacher="The teacher's", corrupted='Corrupted, as the student reads it',
             student="The student's, by which the mask is found")


@HOOKS.register_module()
class PictureHook(Hook):
    """Draw the described region, the found and the true mask of some rows, and note texts, when the loop has a preview.

    The pictures go to ``work_dir/pictures`` and a line for each row to ``pictures/index.jsonl``; the report shows them.
    Each object has its outline on a picture of its own, beside the picture as it is.

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
            kept = [entry for entry in _entries(index) if entry['step'] <= runner.iter]
            write_whole(index, ''.join(map(_line, kept)), 'the list of pictures')

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
            drawn = []
            for key, label, picture in _pictures(data, row, predicted):
                name = f'step{step:06d}_{number}_{key}.png'
                picture.save(folder / name)
                drawn.append((label, name))
            lines.append(_line(dict(
                step=step, pictures=drawn, caption=preview['captions'][row], sample_id=data['sample_ids'][row],
                source=data['sources'][row], iou=iou,
                texts=_texts(runner.model, preview.get('written', {}).get(row), preview['captions'][row]),
            )))
        with open(folder / INDEX, 'a', encoding='utf-8') as index:
            index.writelines(lines)


def _pictures(data: Mapping[str, Any], row: int, predicted: Tensor) -> Iterator[tuple[str, str, Image.Image]]:
    """Key, label and picture: each image as it is, and each object on its own."""
    first, second = int(data['image1'][row]), int(data['image2'][row])
    image1, image2 = (data['g_pixel_values'][image].cpu() for image in (first, second))
    pair = second != first
    yield 'image1', 'Image 1' if pair else 'Image', at_height(image1, HEIGHT)
    yield 'region', 'Region that is described', outlined_at(image1, data['masks1'][row], PROMPT_COLOUR, HEIGHT)
    if pair:
        yield 'image2', 'Image 2', at_height(image2, HEIGHT)
    yield 'found', 'Found', outlined_at(image2, predicted, PREDICTED_COLOUR, HEIGHT)
    yield 'true', 'To find', outlined_at(image2, data['masks2'][row], TARGET_COLOUR, HEIGHT)


def _texts(model, written: Mapping[str, Sequence[int]] | None, caption: str) -> list[tuple[str, list]]:
    """Labels and texts of a row; of those after the first it is marked what differs from it."""
    if not written:
        return [('Human sentence', [(caption, False)])]
    vocabulary = unwrapped(model).base.vocabulary
    first = next(iter(written.values()))
    return [(TEXTS.get(name, name), marked(vocabulary, ids, first)) for name, ids in written.items()]


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + '\n'


def _entries(index: Path) -> list[dict[str, Any]]:
    """The lines of an index; one that the end of a process cut off is left out."""
    entries = []
    for line in index.read_text(encoding='utf-8').splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            print_log(f'{index}: a line is cut off and left out', 'current', logging.WARNING)
    return entries


def read_pictures(work_dir: str | Path) -> list[ReportPanel]:
    """The pictures that were written under ``work_dir``, in the order of their steps, without those that are gone."""
    index = Path(work_dir) / 'pictures' / INDEX
    panels = []
    for entry in _entries(index) if index.is_file() else []:
        drawn = entry.pop('pictures', None) or [('', entry.pop('image'))]  # version 0.1.0 drew one for each row
        there = [(label, index.parent / name) for label, name in drawn if (index.parent / name).is_file()]
        panels.append(ReportPanel(**entry, pictures=there))
    return panels
