"""Open Images v7 segmentation: class labels and masks, no captions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .images import read_mask_image
from .index import Table
from .index_store import IndexSource
from .masks import mask_to_size

_COLUMNS = ('MaskPath', 'ImageID', 'LabelName')
_NAMES = ('LabelName', 'DisplayName')
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
    obtain = 'Pictures, masks and tables: https://storage.googleapis.com/openimages/web/download_v7.html'

    def __init__(self, data_root: str | Path, split: str = 'train', **common):
        self.split = split
        super().__init__(data_root, **common)

    def index_source(self) -> IndexSource:
        remedy = 'Download the Open Images v7 segmentation files'
        files = [self.require(file, 'data_root and split', remedy) for file in self._files]
        for folder in ('images', 'masks'):
            self.require(self.data_root / folder / self.split, 'data_root and split', remedy)
        return IndexSource(files=files)

    @property
    def _files(self) -> tuple[Path, Path]:
        return (self.data_root / f'{self.split}-annotations-object-segmentation.csv',
                self.data_root / 'oidv7-class-descriptions.csv')

    def build_index(self) -> dict[str, Table]:
        table, names = self._files
        labels: dict[str, str] = {}
        for part in read_csv(names, _NAMES):
            labels.update(zip(part['LabelName'].to_pylist(), part['DisplayName'].to_pylist()))

        def tables() -> Iterator[Table]:
            listed = 0
            for part in read_csv(table, _COLUMNS):
                yield _samples_of(part, labels, listed)
                listed += len(part)
                if self.max_samples is not None and listed >= self.max_samples:
                    break

        samples = Table.concatenate(tables())
        images = samples['image_id'].values.dictionary_encode().indices.cast(pa.int64())
        return dict(samples=Table(samples.values.append_column('image', images)))

    def sample_id(self, row: int) -> str:
        return Path(self.index['mask'][row]).stem

    def path(self, row: int) -> Path:
        return self.data_root / 'images' / self.split / f'{self.index["image_id"][row]}.jpg'

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        path = self.data_root / 'masks' / self.split / self.index['mask'][row]
        return mask_to_size(read_mask_image(path), height, width, path)

    def words(self, row: int) -> dict[str, str | None]:
        return super().words(row) | dict(label=self.index['label'][row])


def _samples_of(part: pa.RecordBatch, labels: dict[str, str], first: int) -> Table:
    """The rows of a piece of the segmentation table, numbered from ``first`` on."""
    classes = part['LabelName'].dictionary_encode()
    spoken = pa.array([labels.get(name, name) for name in classes.dictionary.to_pylist()], pa.large_string())
    # Boxes are shares of the picture, so a picture of 1 x 1 is the unit.
    x1, x2, y1, y2 = (part[name].to_numpy(zero_copy_only=False) for name in _BOX)
    rows = len(part)
    return Table.of(image_id=part['ImageID'], mask=part['MaskPath'], label=spoken.take(classes.indices),
                    object=np.arange(first, first + rows), box_width=x2 - x1, box_height=y2 - y1,
                    area=np.full(rows, np.nan), image_width=np.ones(rows), image_height=np.ones(rows))


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """A table of comma-separated values, piece by piece, the first one empty: the named texts and the boxes, numbers.

    A box that is missing, or its whole column, is null.

    Raises:
        ValueError: not such a table, or a row lacks one of ``columns``.
    """
    types = dict.fromkeys(columns, pa.large_string()) | dict.fromkeys(_BOX, pa.float64())
    options = pa.csv.ConvertOptions(column_types=types, include_columns=list(types), include_missing_columns=True,
                                    strings_can_be_null=True, null_values=[''])
    try:
        parts = pa.csv.open_csv(path, convert_options=options)
        yield pa.RecordBatch.from_pylist([], parts.schema)
        for part in parts:
            missing = [name for name in columns if part[name].null_count]
            if missing:
                raise ValueError(f'{path}: a row has no {", ".join(missing)}; download the table again')
            yield part
    except pa.ArrowInvalid as error:
        raise ValueError(f'{path} is not a table of comma-separated values ({error}); download it again') from error
