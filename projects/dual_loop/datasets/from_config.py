"""The data sets of a config, by loader, without its runner, model or samplers."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch.utils.data import Dataset

from dual_loop.loop_names import loader_key, loop_title


def dataset_settings(cfg: Config) -> dict[str, list[Mapping]]:
    """The settings of each single data set, not built yet; a ``ConcatDataset`` is taken apart.

    Args:
        cfg: a config as ``Config.fromfile`` gives it.

    Returns:
        Loader -> its data sets in order: the title of each loop, and 'held out' for the data of validation. The first
        loop is called 'training' in a config that has no other and does not name its loops.

    Raises:
        ValueError: the config has no loader, or a loader no ``dataset``.
    """
    loops = _loops(cfg)
    further = ['loop2'] if _at(cfg, 'train_cfg.loop2_dataloader') is not None else []
    further += [name for name in _at(cfg, 'train_cfg.loop_dataloaders') or {} if name not in further]
    first = loops[0][0] if loops else 'loop1' if further else 'training'
    keys = {loop_title(first): 'train_dataloader'} | {loop_title(name): _key(cfg, name) for name in further}
    keys['held out'] = 'val_dataloader'
    found = {}
    for title, key in keys.items():
        loader = _at(cfg, key)
        if loader is None:
            continue
        if not isinstance(loader.get('dataset'), Mapping):
            raise ValueError(f'{key} of {cfg.filename or "the config"} has no dataset: give {key}.dataset the settings '
                             'of one')
        found[title] = list(_single(loader['dataset']))
    if not found:
        raise ValueError(f'{cfg.filename or "the config"} has no data sets: none of train_dataloader, '
                         'train_cfg.loop2_dataloader, train_cfg.loop_dataloaders, val_dataloader is set')
    return found


def loaders_with_captions(cfg: Config) -> set[str]:
    """Titles, as in :func:`dataset_settings`, of the loaders whose every sample must have a caption."""
    if loops := _loops(cfg):
        return {loop_title(name) for name, needs_captions in loops if needs_captions} | {'held out'}
    return {'loop 2', 'held out'}


def _loops(cfg: Config) -> list[tuple[str, bool]]:
    """Name of each loop that the model lists, and whether it needs captions. The classes say so, nothing is built."""
    found = []
    for loop in (cfg.get('model') or {}).get('loops') or ():
        kind = MODELS.get(loop['type']) if isinstance(loop['type'], str) else loop['type']
        if kind is None:
            raise ValueError(f'model.loops names {loop["type"]}, which is not registered: import its module in '
                             'custom_imports')
        found.append((loop.get('name') or kind.name, kind.needs_captions))
    return found


def _key(cfg: Config, name: str) -> str:
    in_table = name in (_at(cfg, 'train_cfg.loop_dataloaders') or {})
    return f'train_cfg.loop_dataloaders.{name}' if in_table else loader_key(name)


def build_dataset(settings: Mapping) -> Dataset:
    """One data set from its settings, by mmengine's registry; XTuner's is not asked.

    Raises:
        ValueError: ``type`` is missing or names no data set, or an argument is not one of its own.
    """
    kind = data_set_type(settings)
    known = _arguments(kind)
    for key in settings if known else ():
        if key not in known and key not in ('type', '_scope_'):
            nearest = difflib.get_close_matches(key, known, 1)
            raise ValueError(f'{kind.__name__} has no argument {key!r}'
                             f'{f"; did you mean {nearest[0]}?" if nearest else ""}')
    return DATASETS.build(settings)


def _arguments(kind: type) -> set[str]:
    """Names of the arguments of a class and, where it hands the rest on, of its bases; empty if anything goes."""
    known: set[str] = set()
    for each in kind.__mro__:
        if '__init__' not in vars(each):
            continue
        parameters = list(inspect.signature(vars(each)['__init__']).parameters.values())[1:]
        known |= {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            return known
    return set()


def data_set_type(settings: Mapping) -> type[Dataset]:
    """The class of a data set from its settings. Raises ``ValueError`` that says what to do."""
    named = settings.get('type')
    try:
        kind = DATASETS.get(named) if isinstance(named, str) else named
    except (ImportError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f'type={named!r} of a data set cannot be imported: {error}') from error
    if not inspect.isclass(kind) or not issubclass(kind, Dataset):
        known = difflib.get_close_matches(str(named), DATASETS.module_dict, 1)
        raise ValueError(f'type={named!r} is no data set{f" (did you mean {known[0]}?)" if known else ""}: give the '
                         'class itself, its registered name or its full dotted path')
    return kind


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
