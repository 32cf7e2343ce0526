"""Whether a data set that is trained on shows pictures that are held out: those of validation, and RefCOCO's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .base import GroundedDataset
from .callables import named_function
from .describe_anything import COCO_SPLITS, DescribeAnythingDataset
from .exclusion import coco_file_number, excluded_ids
from .refcoco import RefCOCODataset
from .refs import held_out_image_ids


@dataclass
class HeldOut:
    """Pictures that no training may show.

    Attributes:
        numbers: those of COCO -> the folder of the list that holds them out.
        files: picture files of validation, resolved.
    """

    numbers: dict[int, str] = field(default_factory=dict)
    files: set[Path] = field(default_factory=set)

    def add_lists(self, specs: Iterable[object], roots: Iterable[str | Path]) -> None:
        """Add what lists hold out: arguments ``exclude_image_ids`` that name one, and folders of RefCOCO.

        A list that is not there holds out nothing here; the data set that needs it says so.
        """
        folders = [spec['data_root'] for spec in specs if isinstance(spec, Mapping)
                   and named_function(spec.get('type')) is held_out_image_ids and 'data_root' in spec]
        for folder in dict.fromkeys(map(str, [*folders, *roots])):
            try:
                for number in held_out_image_ids(folder):
                    self.numbers.setdefault(number, folder)
            except FileNotFoundError:
                continue

    def add_dataset(self, dataset: GroundedDataset) -> None:
        """Add the pictures of a data set of validation."""
        self.files |= {path.resolve() for _, path in pictures(dataset)}

    def shown_by(self, dataset: GroundedDataset) -> list[str]:
        """What of it a data set can show, a sentence each."""
        found = []
        listed = pictures(dataset)
        same = [path for _, path in listed if path.resolve() in self.files]
        if same and not isinstance(dataset, DescribeAnythingDataset):  # there a path is an archive
            found.append(f'{len(same)} of its {len(listed)} pictures are those of validation, such as {same[0]}: '
                         'held-out figures would say nothing')
        if isinstance(dataset, DescribeAnythingDataset):
            excluded = excluded_ids(dataset.exclude_image_ids or ())
            numbers = self.numbers.keys() - excluded if dataset.split in COCO_SPLITS else set()
            text = f'its exclude_image_ids leaves in {len(numbers)} pictures of COCO that are held out'
        else:
            numbers = {number for row, path in listed for number in coco_numbers(dataset, row, path)}
            numbers &= self.numbers.keys()
            text = f'{len(numbers)} of its pictures are held out'
        if numbers:
            first = min(numbers)
            found.append(f"{text}, such as {first} in {self.numbers[first]}: set exclude_image_ids=dict("
                         f"type=held_out_image_ids, data_root='{self.numbers[first]}')")
        return found


def may_show_held_out(dataset: GroundedDataset) -> bool:
    """Whether a data set shows pictures of COCO and leaves out none."""
    if dataset.exclude_image_ids != frozenset():
        return False
    if isinstance(dataset, DescribeAnythingDataset):
        return dataset.split in COCO_SPLITS
    return isinstance(dataset, RefCOCODataset) or any(
        coco_file_number(path.name) is not None for _, path in pictures(dataset))


def pictures(dataset: GroundedDataset) -> list[tuple[int, Path]]:
    """(row, path) of each picture of a data set."""
    rows = np.unique(dataset.index['image'], return_index=True)[1] if 'image' in dataset.index \
        else np.arange(len(dataset.index))
    return [(row, dataset.path(row)) for row in rows.tolist()]


def coco_numbers(dataset: GroundedDataset, row: int, path: Path) -> set[int]:
    """The numbers of a picture in COCO, as far as a data set says."""
    number = coco_file_number(path.name)
    if isinstance(dataset, RefCOCODataset):
        return {int(dataset.index['image'][row])}
    return set() if number is None else {number}
