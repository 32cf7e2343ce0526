"""Open Images v7 segmentation: class labels and masks, no captions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .csv_tables import read_csv
from .images import read_mask_image
from .index import Table
from .index_store import IndexSource
from .masks import mask_to_size
from .row_checks import repeated_rows

_COLUMNS = ('MaskPath', 'ImageID', 'LabelName')
_NAMES = ('LabelName', 'DisplayName')
# A mask is named by its image, class and box: 88030e22ad5df7dd_m02p5f1q_5f9b5a8b.png.
_MASK_NAME = r'^(?P<image>[0-9a-f]{16})_(?P<label>m[^_]*)_[^_]*\.png$'
_LEADS_OUT = r'(^|/)\.\.(/|$)|^/|\x00'
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
    index_code = (read_csv, )
    ids_are_unique = True

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
        labels = self._labels(names)

        def note(row: str, reason: str) -> None:
            self.quarantine.note(row, table, reason)

        def tables() -> Iterator[Table]:
            listed = 0
            for part in read_csv(table, _COLUMNS, _BOX, note):
                part = _consistent(part, note)
                yield _samples_of(part, labels, listed)
                listed += len(part)
                if self.max_samples is not None and listed >= self.max_samples:
                    break

        samples = Table.concatenate(tables())
        repeated = repeated_rows(samples['mask'], len(samples))
        contradicted = {first for row, first in repeated.items()
                        if samples['image_id'][row] != samples['image_id'][first]}
        for row, first in repeated.items():
            note(f'{samples["mask"][row]} again (row {row})', f'row {first} has that mask already')
        for row in contradicted:
            note(samples['mask'][row], 'other rows say that the mask belongs to another image')
        samples = samples.without(repeated.keys() | contradicted)
        images = samples['image_id'].values.dictionary_encode().indices.cast(pa.int64())
        return dict(samples=Table(samples.values.append_column('image', images)))

    def _labels(self, path: Path) -> dict[str, str]:
        """Display name of each class; one with two names goes by its code."""
        labels: dict[str, str] = {}
        for part in read_csv(path, _NAMES, (), lambda row, reason: self.quarantine.note(row, path, reason)):
            for code, name in zip(part['LabelName'].to_pylist(), part['DisplayName'].to_pylist()):
                if labels.setdefault(code, name) not in (name, code):
                    self.quarantine.note(code, path, f'the class has two names, {labels[code]!r} and {name!r}')
                    labels[code] = code
        return labels

    def sample_id(self, row: int) -> str:
        return self.index['mask'][row].removesuffix('.png')

    def path(self, row: int) -> Path:
        return self.data_root / 'images' / self.split / f'{self.index["image_id"][row]}.jpg'

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        path = self.data_root / 'masks' / self.split / self.index['mask'][row]
        return mask_to_size(read_mask_image(path), height, width, path)

    def words(self, row: int) -> dict[str, str | None]:
        return super().words(row) | dict(label=self.index['label'][row])


def _consistent(part: pa.RecordBatch, bad: Callable[[str, str], None]) -> pa.RecordBatch:
    """The rows whose mask is of the image and the class that they name, as far as the name of its file says."""
    said = pa.compute.extract_regex(part['MaskPath'], _MASK_NAME)
    image, label = (pa.compute.struct_field(said, name) for name in ('image', 'label'))
    codes = pa.compute.replace_substring(part['LabelName'], '/', '')
    wrong = {
        'belongs to another image than ImageID': pa.compute.not_equal(image, part['ImageID']),
        'belongs to another class than LabelName': pa.compute.not_equal(label, codes),
        'or the image has a name that leads out of its folder': pa.compute.or_(
            *(pa.compute.match_substring_regex(part[name], _LEADS_OUT) for name in ('MaskPath', 'ImageID'))),
    }
    kept = np.ones(len(part), bool)
    for reason, where in wrong.items():
        for row in np.flatnonzero(kept & where.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
            bad(part['MaskPath'][row].as_py(), f'the mask {reason} ({part["ImageID"][row]}, {part["LabelName"][row]})')
            kept[row] = False
    return part.filter(pa.array(kept))


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
