"""What a run is made of, kept in every checkpoint, so that a resumed run can tell whether it continues the same one."""

import difflib
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader

# Their values differ between a run and its continuation without any meaning.
_BY_THE_WAY = re.compile(r'^(load_from|resume|work_dir|launcher|experiment_name) = ')


def describe_run(cfg: Config, seed: int, dataloaders: dict[int, DataLoader], accumulative_counts: int,
                 weights: str) -> dict[str, Any]:
    """Plain values that say what is trained on what.

    Args:
        cfg: the running config.
        seed: of the runner.
        dataloaders: of loop 1 and 2.
        accumulative_counts: micro-batches per step and loop.
        weights: fingerprint of the base weights.
    """
    return dict(
        seed=seed,
        world_size=get_world_size(),
        accumulative_counts=accumulative_counts,
        batch_size={f'loop {loop}': loader.batch_sampler.batch_size for loop, loader in dataloaders.items()},
        data={f'loop {loop}': describe_data(loader.dataset) for loop, loader in dataloaders.items()},
        weights=weights,
        config=cfg.pretty_text,
    )


def describe_data(dataset) -> list[str]:
    """Each source with its number of samples, also inside torch's ``ConcatDataset``."""
    if hasattr(dataset, 'datasets'):
        return [line for part in dataset.datasets for line in describe_data(part)]
    return [f'{getattr(dataset, "source", type(dataset).__name__)}: {len(dataset)} samples']


def check_continuation(checkpoint: Path, previous: dict[str, Any] | None, current: dict[str, Any]) -> list[str]:
    """Compare the run in a checkpoint with the one that wants to continue it.

    Args:
        checkpoint: its path.
        previous: what :func:`describe_run` gave there; None if it has none.
        current: what it gives now.

    Returns:
        The lines in which the configs differ, ``-`` before and ``+`` now; allowed, but worth a look.

    Raises:
        ValueError: seed, world size, batch size, accumulation, data or base weights differ, so the continuation could
            not be exact.
    """
    if previous is None:
        raise ValueError(f'{checkpoint} does not say what it was trained on, so it cannot be resumed exactly: it was '
                         'not written by this loop')
    for key, value in current.items():
        if key != 'config' and previous.get(key) != value:
            raise ValueError(f'{checkpoint} cannot be resumed exactly: {key} was {previous.get(key)} and is {value} '
                             'now; restore it, or start a new run from the checkpoint with load_from=PATH and without '
                             '--resume')
    lines = difflib.unified_diff(*([line for line in text['config'].splitlines() if not _BY_THE_WAY.match(line)]
                                   for text in (previous, current)), lineterm='', n=0)
    return [line for line in lines if line[0] in '+-' and not line.startswith(('+++', '---'))]
