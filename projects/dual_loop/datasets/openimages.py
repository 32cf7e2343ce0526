"""Open Images v7 segmentation: class labels and masks, no captions."""

import csv
import math
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .images import read_image, read_mask_image
from .index import Table, TableBuilder
from .masks import mask_to_size

_COLUMNS = ('MaskPath', 'ImageID', 'LabelName')
_BOX = ('BoxXMin', 'BoxXMax', 'BoxYMin', 'BoxYMax')


@DATASETS.register_module()
class OpenImagesDataset(GroundedDataset):
    """One sample per row of the segmentation table.

    Below ``data_root``: ``{split}-annotations-object-segmentation.csv``, ``oidv7-class-descriptions.csv``,
    ``images/{split}/{ImageID}.jpg`` and ``masks/{split}/{MaskPath}``. A mask is usually smaller than its picture and is
    brought to the picture's pixels. Samples have no caption; ``label`` is the class's display name.

    Args:
        data_root: folder of the tables and of ``images`` and ``masks``.
        split: 'train', 'validation' or 'test'.
        **common: see ``GroundedDataset``.
    """

    licence = 'Open Images V7 (Google): annotations CC BY 4.0, pictures CC BY 2.0'

    def __init__(self, data_root: str | Path, split: str = 'train', **common):
        self.split = split
        super().__init__(data_root, **common)

    def default_name(self) -> str:
        return 'openimages'

    def build_index(self) -> Table:
        remedy = 'Download the Open Images v7 segmentation files'
        table = self.data_root / f'{self.split}-annotations-object-segmentation.csv'
        table = self.require(table, 'data_root and split', remedy)
        names = self.require(self.data_root / 'oidv7-class-descriptions.csv', 'data_root', remedy)
        for folder in ('images', 'masks'):
            self.require(self.data_root / folder / self.split, 'data_root and split', remedy)
        labels = {row['LabelName']: row['DisplayName'] for row in read_csv(names, ('LabelName', 'DisplayName'))}
        builder = TableBuilder(image_id=str, mask=str, label=str, image=int, object=int, box_width=float,
                               box_height=float, area=float, image_width=float, image_height=float)
        numbers: dict[str, int] = {}
        for row in read_csv(table, _COLUMNS):
            if self.full(builder):
                break
            x1, x2, y1, y2 = (_number(row.get(name)) for name in _BOX)
            # Boxes are shares of the picture, so a picture of 1 x 1 is the unit.
            builder.append(image_id=row['ImageID'], mask=row['MaskPath'], object=len(builder),
                           label=labels.get(row['LabelName'], row['LabelName']),
                           image=numbers.setdefault(row['ImageID'], len(numbers)), box_width=x2 - x1,
                           box_height=y2 - y1, area=math.nan, image_width=1, image_height=1)
        return builder.build()

    def sample_id(self, row: int) -> str:
        return Path(self.index['mask'][row]).stem

    def path(self, row: int) -> Path:
        return self.data_root / 'images' / self.split / f'{self.index["image_id"][row]}.jpg'

    def read_image(self, row: int) -> torch.Tensor:
        return read_image(self.path(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        path = self.data_root / 'masks' / self.split / self.index['mask'][row]
        return mask_to_size(read_mask_image(path), height, width, path)

    def describe(self, row: int) -> dict[str, str | None]:
        return dict(caption=None, label=self.index['label'][row])


def read_csv(path: Path, columns: tuple[str, ...]):
    """Yield the rows of a table as dictionaries.

    Raises:
        ValueError: a row lacks one of ``columns``.
    """
    with open(path, newline='', encoding='utf-8') as stream:
        for row in csv.DictReader(stream):
            missing = [name for name in columns if not row.get(name)]
            if missing:
                raise ValueError(f'{path}: a row has no {", ".join(missing)}; download the table again')
            yield row


def _number(text: str | None) -> float:
    return float(text) if text else math.nan
