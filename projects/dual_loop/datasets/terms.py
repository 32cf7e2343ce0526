"""Under which terms the data of a config may be used."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import DATASETS

from .base import GroundedDataset

#: Of data that a data set draws by itself.
SYNTHETIC = 'synthetic scenes drawn by dual-loop: no terms'


def data_terms(settings: Any) -> Iterator[str]:
    """Name, owner and terms of each data set of a training config, validation and test left out."""
    if isinstance(settings, Mapping):
        kind = settings.get('type')
        if isinstance(kind, str):  # as a dumped config has it
            kind = DATASETS.get(kind)
        if inspect.isclass(kind) and issubclass(kind, GroundedDataset):
            yield SYNTHETIC if 'prepare' in settings else \
                kind.licence or f'{kind.__name__}: terms not stated'
        for key in settings:
            if key not in ('val_dataloader', 'test_dataloader', 'custom_hooks', 'model'):
                yield from data_terms(settings[key])
    elif isinstance(settings, (list, tuple)):
        for part in settings:
            yield from data_terms(part)
