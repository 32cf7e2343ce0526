"""Where a run continues, and whether it is still the same run: what it is made of is kept in every checkpoint."""

import difflib
import logging
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from dual_loop.checkpoints.files import LATEST, check_whole, trained_names
from llava_sam2.trainable import has_unused_masks

# Their values differ between a run and its continuation without any meaning.
_BY_THE_WAY = re.compile(r'^(load_from|resume|work_dir|launcher|experiment_name) = ')

_BASE = 'llava_sam2.model.VideoLLaVASAMModel'


def latest_checkpoint(work_dir: str | Path) -> Path:
    """The newest whole checkpoint: the one that ``last_checkpoint`` names, else that of the highest step.

    Where the note is wrong, or a newer one is damaged, a warning says so.

    Raises:
        FileNotFoundError: there is none.
        ValueError: none of them is whole.
    """
    work_dir = Path(work_dir)
    found = [path for path in work_dir.glob('iter_*.pth') if path.stem.removeprefix('iter_').isdecimal()]
    candidates = sorted(found, key=lambda path: int(path.stem.removeprefix('iter_')), reverse=True)
    faults = []
    if (note := work_dir / LATEST).is_file():
        noted = work_dir / Path(note.read_text(encoding='utf-8', errors='replace').strip('\0\r\n ')).name
        if noted in candidates:  # those of later steps are of an earlier run in this folder
            candidates = candidates[candidates.index(noted):]
        elif noted != work_dir and noted.exists():  # another hook has names of its own
            candidates.insert(0, noted)
        else:
            faults.append(f'{note} is empty' if noted == work_dir else f'{note} names {noted.name}, which is not there')
    if not candidates:
        raise FileNotFoundError(f'--resume found no checkpoint iter_*.pth in {work_dir}: give its path, or leave '
                                '--resume out to start anew.')
    for path in candidates:
        try:
            check_whole(path, everywhere=True)
        except (FileNotFoundError, ValueError) as error:
            faults.append(str(error))
            continue
        if faults:
            print_log(f'{"; ".join(faults)}. Going on from {path}, the newest whole one', 'current', logging.WARNING)
        return path
    raise ValueError(f'no checkpoint in {work_dir} is whole: {"; ".join(faults)}')


def go_on_as_begun(path: Path, cfg: Config) -> None:
    """Let a run of version 0.1.0 train the same tensors to its end, since averages and optimizer state hold them all.

    They are those of masks that are never taken; a new run freezes them.

    Args:
        path: the checkpoint that is resumed.
        cfg: of the run, changed in place.
    """
    model = cfg.get('model') or {}
    base = model.get('base', model)
    if getattr(base.get('type'), '__name__', base.get('type')) not in ('VideoLLaVASAMModel', _BASE):
        return
    if base.get('train_unused_masks') is None and has_unused_masks(trained_names(path)):
        base['train_unused_masks'] = True
        print_log(f'{path} is of a run that also trains masks which mask_selection never takes, as version 0.1.0 did: '
                  'they go on being shrunk by weight decay, on which nothing depends (model.base.train_unused_masks); '
                  'a new run leaves them as they are', 'current', logging.WARNING)


def resumed_from(runner) -> Path | None:
    """The checkpoint that a runner continues from; None for a new run."""
    if not (runner._resume and runner._has_loaded):
        return None
    return Path(runner._load_from) if runner._load_from else latest_checkpoint(runner.work_dir)


#: Of what a run draws, trains and signs. It goes up with every change after which a run could not continue exactly.
RUN_FORMAT = 1


def describe_run(cfg: Config, seed: int, dataloaders: dict[str, DataLoader], accumulative_counts: int,
                 weights: str) -> dict[str, Any]:
    """Plain values that say what is trained on what.

    Args:
        cfg: the running config.
        seed: of the runner.
        dataloaders: title of each loop -> its loader.
        accumulative_counts: micro-batches per step and loop.
        weights: fingerprint of the base weights.
    """
    return dict(
        format=RUN_FORMAT,
        seed=seed,
        world_size=get_world_size(),
        accumulative_counts=accumulative_counts,
        batch_size={loop: loader.batch_sampler.batch_size for loop, loader in dataloaders.items()},
        data={loop: describe_data(loader.dataset) for loop, loader in dataloaders.items()},
        weights=weights,
        config=cfg.pretty_text,
        schedule=Config({key: cfg.get(key) for key in ('optim_wrapper', 'param_scheduler')}).pretty_text,
    )


def describe_data(dataset) -> list[str]:
    """Each source with its number of samples and what they are, also inside torch's ``ConcatDataset``."""
    if hasattr(dataset, 'datasets'):
        return [line for part in dataset.datasets for line in describe_data(part)]
    content = f', index {dataset.index_digest[:12]}' if hasattr(dataset, 'index_digest') else ''
    return [f'{getattr(dataset, "source", type(dataset).__name__)}: {len(dataset)} samples{content}']


def check_same_run(checkpoint: Path, previous: dict[str, Any] | None, current: dict[str, Any]) -> None:
    """Refuse to continue a run that would not be the same any more.

    Args:
        checkpoint: its path.
        previous: what :func:`describe_run` gave there; None if it has none.
        current: what it gives now.

    Raises:
        ValueError: seed, world size, batch size, accumulation, data or base weights differ.
    """
    if previous is None:
        raise ValueError(f'{checkpoint} does not say what it was trained on, so it cannot be resumed exactly: it was '
                         'not written by this loop')
    previous = dict(format=1) | previous  # the first one was not noted
    if previous['format'] != RUN_FORMAT:
        raise ValueError(f'{checkpoint} was written by another version of dual-loop (format {previous["format"]}, this '
                         f'is {RUN_FORMAT}), which draws or trains otherwise, so it cannot be resumed exactly: start a '
                         'new run from it with load_from=PATH and without --resume')
    for key, value in current.items():
        if key not in ('config', 'schedule') and previous.get(key) != value:
            raise ValueError(f'{checkpoint} cannot be resumed exactly: {key} was {previous.get(key)} and is {value} '
                             'now; restore it, or start a new run from the checkpoint with load_from=PATH and without '
                             '--resume')


def changed_settings(previous: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """The lines in which the configs of a run and of its continuation differ, ``-`` before and ``+`` now.

    A last line says so if optimizer or schedule differ, whose state comes from the checkpoint.
    """
    before, now = ([line for line in run['config'].splitlines() if not _BY_THE_WAY.match(line)]
                   for run in (previous, current))
    lines = difflib.unified_diff(before, now, lineterm='', n=0)
    changes = [line for line in lines if line[0] in '+-' and not line.startswith(('+++', '---'))]
    if previous['schedule'] != current['schedule']:
        changes.append('optim_wrapper and param_scheduler go on as the checkpoint has them: their changes above have '
                       'NO EFFECT, and steps beyond the old schedule keep its last learning rate. For another schedule '
                       'start a new run from the checkpoint, with load_from=PATH and without --resume')
    return changes
