"""``train --dry-run``: one step of every loop as the run would take it, without a trace in the work_dir."""

import resource
import tempfile
from argparse import Namespace
from collections.abc import Callable
from copy import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from dual_loop.config_files import read_config

from .config_check import check_config_keys


class DryRunHook(Hook):
    """Prints what the first step took, whose data are real: seconds by phase, and the peak of memory of all ranks."""

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        figures = outputs if isinstance(outputs, dict) else {}
        phases = {name.removeprefix('seconds/'): value for name, value in figures.items()
                  if name.startswith('seconds/')}
        peaks = all_gather_object(peak_memory())
        if is_main_process():
            print('\n'.join(report(phases, peaks)), flush=True)


def peak_memory() -> tuple[str, int]:
    """Whose memory it is, and how many bytes of it this process has had at once."""
    if torch.cuda.is_available():
        return 'GPU', torch.cuda.max_memory_allocated()
    return 'process', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(phases: dict[str, float], peaks: list[tuple[str, int]]) -> list[str]:
    """Lines on what a step took."""
    kind, peak = max(peaks, key=lambda each: each[1])
    lines = ['dry run: all is built, and one step was taken; nothing is kept']
    if phases:
        lines.append(f'  seconds of the first step, compilation and start of the loaders included: '
                     f'{sum(phases.values()):.2f}')
        lines += [f'    {name:20} {value:8.2f}' for name, value in phases.items()]
    at_most = ' at most' if len(peaks) > 1 else ''
    return [*lines, f'  peak memory of {f"each {kind}" if len(peaks) > 1 else f"the {kind}"}{at_most}: '
                    f'{peak / 2**30:.2f} GiB']


def of_one_step(cfg: Config) -> Config:
    """A config that builds what ``cfg`` does, takes one step, and neither saves, validates nor draws.

    Hooks that keep a teacher stay, since a step needs them.
    """
    steps = dict(max_steps=1, preview_interval=0, val_interval=0) if 'max_steps' in cfg.train_cfg else dict(max_iters=1)
    cfg.train_cfg.update(steps)
    if 'max_steps' not in cfg.train_cfg:  # stock loops validate after the last step
        for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
            cfg.pop(key, None)
    hooks = {name: hook for name, hook in (cfg.get('default_hooks') or {}).items()}
    cfg.default_hooks = hooks | dict(logger=None, checkpoint=None)
    kept = [hook for hook in cfg.get('custom_hooks') or [] if _keeps_teacher(hook)]
    cfg.custom_hooks = [*kept, dict(type='dual_loop.engine.dry_run.DryRunHook')]
    cfg.visualizer = None
    cfg.pop('work_dir', None)
    return cfg


def _keeps_teacher(hook: dict) -> bool:
    cls = HOOKS.get(hook['type']) if isinstance(hook['type'], str) else hook['type']
    return getattr(cls, 'keeps_teacher', False)


def take_one_step(args: Namespace, config_file: Path, train: Callable[[Namespace], None]) -> None:
    """Train one step of what the arguments ask for, in a folder that is removed afterwards.

    Args:
        args: of ``dual-loop train``.
        config_file: of the run.
        train: trains by such arguments.

    Raises:
        ValueError: together with ``--resume``; and whatever training raises.
    """
    if args.resume is not None:
        raise ValueError('--dry-run takes the first step of a run and no later one: leave --resume out')
    with tempfile.TemporaryDirectory(prefix='dual-loop-dry-run-') as folder:  # one of each rank, which none waits for
        dry = copy(args)
        file = Path(folder) / config_file.name
        cfg = read_config(config_file, args.cfg_options)
        if args.cfg_options:
            check_config_keys(cfg)
        of_one_step(cfg).dump(file)
        dry.config, dry.cfg_options, dry.work_dir, dry.dry_run = str(file), [], str(Path(folder) / 'work'), False
        train(dry)
