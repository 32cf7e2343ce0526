"""What is really in the pictures of a data set, where that is known: in demo data (``scenes.jsonl``)."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from dual_loop.datasets import DescribeAnythingDataset, GroundedDataset, RefCOCODataset
from dual_loop.demo.truth import read_objects


class SceneTruth:
    """The truth about the objects of a data set, read when it is first asked for."""

    def __init__(self, dataset: GroundedDataset):
        self._dataset = dataset

    @cached_property
    def _objects(self) -> dict[str, dict[str, Any]]:
        return read_objects(self._folder)

    @property
    def _folder(self) -> Path:
        dataset = self._dataset
        if isinstance(dataset, RefCOCODataset):
            return dataset.data_root / dataset.dataset
        return dataset.data_root / dataset.split if isinstance(dataset, DescribeAnythingDataset) else dataset.data_root

    def __getitem__(self, row: int) -> Mapping[str, Any] | None:
        """``shape``, ``colour``, ``size``, ``texture`` and what else is known of the object of a row; None of other
        data."""
        return self._objects.get(self._name(row)) if self._objects else None

    def _name(self, row: int) -> str:
        if isinstance(self._dataset, RefCOCODataset):  # its samples are sentences
            return f'{self._dataset.path(row).stem}_{self._dataset.index["object"][row]}'
        return self._dataset.sample_id(row)
