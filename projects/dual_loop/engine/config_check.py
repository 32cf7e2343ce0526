"""Refuses settings that nothing reads, above all misspelt keys of ``--cfg-options``, and values of another kind.

mmengine merges any ``--cfg-options`` key into the config and trains on as if nothing had happened. Here every key of
the running config must come from the config file itself, be a setting of the runner or of XTuner, or be an argument of
the class that the surrounding dict builds, and its value must be of the kind that the argument is annotated with.
"""
import difflib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import FlexibleRunner, Runner
from mmengine.utils import get_object_from_string
from torch.utils.data import DataLoader

from .value_check import check_value

# Read from the top of the config, beside the arguments of the two runners: by xtuner's train command, or as runner.cfg.
TOP_LEVEL_KEYS = {
    'custom_imports', 'framework', 'model_resource', 'model_wrapper_cfg', 'pretrained_model_name_or_path',
    'runner_type', 'sequence_parallel_size', 'use_varlen_attn'
}
# Dicts without `type` whose keys are fixed elsewhere, by their own name.
UNTYPED_KEYS = {
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},  # Runner.set_randomness
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},  # Runner.setup_env
    'mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'dist_cfg': {'backend', 'timeout', 'init_backend', 'init_method'},  # mmengine.dist.init_dist
    'clip_grad': {'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value'},
    'default_hooks': {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'},
    'train_cfg': {'by_epoch', 'max_epochs', 'max_iters', 'val_begin', 'val_interval', 'dynamic_intervals'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
}
# Keys that mmengine takes out of a typed dict before it builds the class.
BUILDER_KEYS = {'type', '_scope_', 'priority', 'convert_to_iter_based', 'constructor', 'paramwise_cfg'}
# Dicts whose keys are names of the user's own, such as parameter names.
FREE_FORM = {'paramwise_cfg', 'custom_keys', 'strategy', 'compile'}


def check_config_keys(cfg: Config, config_file: str | Path | None = None) -> None:
    """Refuse a key of the running config that nothing reads, and a value of a kind that its reader does not take.

    Args:
        cfg: the config the runner was built from, ``--cfg-options`` merged in (``runner.cfg``).
        config_file: the file it came from; ``cfg.filename`` if None.

    Raises:
        ValueError: names the first unknown key, the nearest valid one and the remedy. Also when a name at the top of
            the file, which only the file itself uses, was changed: that changes nothing below it. Or names the value
            that is none of its kind.
    """
    config_file = config_file if config_file is not None else cfg.filename
    if config_file is None:  # built from a dict in a script: there is nothing to compare with
        return
    stated = _config_as_loaded(cfg, Path(config_file))
    running = cfg._cfg_dict.to_dict()
    known = set(TOP_LEVEL_KEYS)
    for runner in (Runner, FlexibleRunner):
        known |= set(inspect.signature(runner.__init__).parameters) - {'self', 'cfg'}
    _refuse_changed_names(running, stated, known, config_file)
    for key, value in running.items():
        if key not in stated and key not in known:
            _refuse(key, key, known | set(stated), config_file)
        _check(value, stated.get(key), key, key, config_file)


def _config_as_loaded(cfg: Config, config_file: Path) -> dict:
    """The config as its file states it.

    A run from the copy in its own work_dir overwrites that copy, options and all, before the loop is built; the text
    that was read at the start is kept in ``cfg.text`` and stands in for the file then.
    """
    overwritten = Path(cfg.get('work_dir') or 'work_dirs', config_file.name).resolve() == config_file.resolve()
    if overwritten and 'read_base' not in cfg.text:
        text = cfg.text.removeprefix(os.path.abspath(config_file))  # mmengine puts the path in front of the text
        return Config.fromstring(text, '.py')._cfg_dict.to_dict()
    return Config.fromfile(config_file)._cfg_dict.to_dict()


def _refuse_changed_names(running: dict, stated: dict, known: set[str], config_file: str | Path) -> None:
    for key, value in stated.items():
        # Functions such as read_base are no settings; XTuner replaces them by their names.
        is_setting = not isinstance(value, (dict, list)) and not callable(value)
        if key not in known and is_setting and running.get(key, value) != value:
            raise ValueError(
                f'--cfg-options {key}={running[key]} changes nothing: {key} is a name that only {config_file} uses '
                'while it is read; give the setting that it fills, such as train_dataloader.batch_size=8, instead.')


def _check(value: Any, stated: Any, name: str, path: str, config_file: str | Path) -> None:
    """Compare one value below the top level with what the file states at the same place (None: nothing)."""
    if isinstance(value, (list, tuple)):
        stated = stated if isinstance(stated, (list, tuple)) and len(stated) == len(value) else [None] * len(value)
        for index, (item, stated_item) in enumerate(zip(value, stated)):
            _check(item, stated_item, name, f'{path}.{index}', config_file)
        return
    if not isinstance(value, dict) or name in FREE_FORM:
        return
    stated = stated if isinstance(stated, dict) else {}
    accepted = _accepted_keys(value, name)
    for key, item in value.items():
        if key not in stated and accepted is not None and key not in accepted:
            _refuse(key, f'{path}.{key}', set(accepted) | set(stated), config_file)
        check_value(item, (accepted or {}).get(key), stated.get(key), f'{path}.{key}')
        _check(item, stated.get(key), key, f'{path}.{key}', config_file)


def _accepted_keys(value: dict, name: str) -> dict[str, Any] | None:
    """Keys that may stand in a dict called `name` whether or not the file has them, with the annotations of those that
    have one; None if any key may."""
    if name.endswith('dataloader'):
        return {**(_arguments(DataLoader) or {}), 'num_batch_per_epoch': None}
    if 'type' not in value:
        return dict.fromkeys(UNTYPED_KEYS.get(name, set()))
    if name in UNTYPED_KEYS and name != 'train_cfg':
        return dict.fromkeys(UNTYPED_KEYS[name])
    target = _resolve(value['type'])
    arguments = None if target is None else _arguments(target)
    return None if arguments is None else {**dict.fromkeys(BUILDER_KEYS), **arguments}


def _resolve(target: Any) -> Callable | None:
    """The class or function behind a `type`; None for a name that no registry has (building it will say so)."""
    if not isinstance(target, str):
        return target
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry):
            registry.import_from_location()
            if target in registry.module_dict:
                return registry.module_dict[target]
    return get_object_from_string(target)


def _arguments(target: Callable) -> dict[str, Any] | None:
    """Names of the arguments that `target` takes, with their annotations; None if it takes any.

    ``**kwargs`` of a constructor is followed to the next class that defines one, which is where it goes by custom. A
    function or bound method with ``**kwargs``, ``from_pretrained`` for one, takes any.
    """
    functions = [target]
    if inspect.isclass(target):
        functions = [vars(base)['__init__'] for base in target.__mro__[:-1] if '__init__' in vars(base)]
    names: dict[str, Any] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        taken = {p.name: p.annotation for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        names = {**taken, **names}
        names.pop('self', None)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return None if functions else names


def _refuse(key: str, path: str, valid: set[str], config_file: str | Path) -> None:
    near = difflib.get_close_matches(key, sorted(valid - {'type'}), n=1)
    parent = path.removesuffix(key)
    hint = f'did you mean {parent}{near[0]}?' if near else f'known here: {", ".join(sorted(valid))}.'
    raise ValueError(f'Unknown setting {path}: nothing reads it and {config_file} does not have it; {hint} '
                     'Correct or remove it in --cfg-options.')
