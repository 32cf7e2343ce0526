"""The data sets of a config, by loader, without its runner, model or samplers."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

#: Name of a loader -> where it stands in a config.
LOADERS = {
    'loop 1': 'train_dataloader',
    'loop 2': 'train_cfg.loop2_dataloader',
    'held out': 'val_dataloader',
}


def dataset_settings(cfg: Config) -> dict[str, list[Mapping]]:
    """The settings of each single data set, not built yet; a ``ConcatDataset`` is taken apart.

    Args:
        cfg: a config as ``Config.fromfile`` gives it.

    Returns:
        Loader -> its data sets in order. The keys are those of :data:`LOADERS` that the config has; of a config
        without a second loop the first is called 'training'.

    Raises:
        ValueError: the config has no loader, or a loader no ``dataset``.
    """
    found = {}
    for name, key in LOADERS.items():
        loader = _at(cfg, key)
        if loader is None:
            continue
        if not isinstance(loader.get('dataset'), Mapping):
            raise ValueError(f'{key} of {cfg.filename or "the config"} has no dataset: give {key}.dataset the settings '
                             'of one')
        found[name] = list(_single(loader['dataset']))
    if not found:
        raise ValueError(f'{cfg.filename or "the config"} has no data sets: none of {", ".join(LOADERS.values())} is '
                         'set')
    if 'loop 2' not in found and 'loop 1' in found:
        found = {'training': found.pop('loop 1'), **found}
    return found


def build_dataset(settings: Mapping) -> Dataset:
    """One data set from its settings, by mmengine's registry; XTuner's is not asked."""
    return DATASETS.build(settings)


def _at(cfg: Config, key: str) -> Any:
    value = cfg
    for part in key.split('.'):
        value = (value or {}).get(part)
    return value


def _single(settings: Mapping) -> Iterator[Mapping]:
    # The type is not looked at: in a lazy config that would import XTuner for its ConcatDataset.
    if 'datasets' in settings:
        for each in settings['datasets']:
            yield from _single(each)
    elif isinstance(settings.get('dataset'), Mapping):  # one data set wrapped by another; RefCOCO has a name there
        yield from _single(settings['dataset'])
    else:
        yield settings
