"""Whether the batches that loader workers hand over fit into the shared memory of the machine."""

import io
import math
import os
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from .workers import AwaitedLoader

#: Where Linux keeps it; containers often get 64 MB.
SHARED_MEMORY = '/dev/shm'


def free_shared_memory(folder: str | Path = SHARED_MEMORY) -> float:
    """Bytes; infinite on a machine that has no such folder."""
    try:
        status = os.statvfs(folder)
    except FileNotFoundError:
        return math.inf
    return status.f_bavail * status.f_frsize


def check_shared_memory(loaders: Sequence[AwaitedLoader], free: float | None = None, processes: int | None = None
                        ) -> None:
    """Refuse loaders whose workers would fill the shared memory: what they cannot put there is lost.

    A batch is read to be measured, in a worker and not here: it may hang, and what reading opens is not to be shared
    with the workers to come.

    Args:
        loaders: of this process; those without workers need none.
        free: bytes; by default what :func:`free_shared_memory` says.
        processes: of this machine, all with the same loaders; by default those of the launcher.

    Raises:
        ValueError: with all figures and the remedy.
        BrokenLoader: the batch does not come.
    """
    free = free_shared_memory() if free is None else free
    processes = processes or int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    lines, needed = [], 0
    for each in loaders:
        if each.loader.num_workers:
            size, workers, ahead = batch_bytes(each), each.loader.num_workers, each.loader.prefetch_factor
            needed += size * workers * ahead * processes
            lines.append(f'{each.name}: {_mb(size)} a batch x {workers} workers x {ahead} batches ahead')
    if needed > free:
        raise ValueError(
            f'the data loaders need up to {_mb(needed)} of shared memory ({"; ".join(lines)}; x {processes} processes '
            f'on this machine), but {SHARED_MEMORY} has {_mb(free)} free: start the container with --ipc=host or '
            f'--shm-size={math.ceil(needed / 1e9)}g, set a lower num_workers or batch_size, or num_workers=0, which '
            'needs none')


def batch_bytes(awaited: AwaitedLoader) -> int:
    """Bytes of the tensors in a batch of a loader, of samples from all over its data set."""
    loader = awaited.loader
    size = getattr(loader.batch_sampler, 'batch_size', None)
    collate = partial(_measured, loader.collate_fn)
    options: dict[str, Any] = dict(num_workers=1, collate_fn=collate,
                                   multiprocessing_context=loader.multiprocessing_context)
    if size is None:  # items of the data set are batches
        sample = DataLoader(loader.dataset, batch_size=None, sampler=list(loader.sampler)[:1], **options)
    else:
        spread = np.linspace(0, len(loader.dataset) - 1, size).astype(int).tolist()
        sample = DataLoader(loader.dataset, batch_sampler=[spread], **options)
    return max(AwaitedLoader(sample, awaited.name, awaited.timeout, awaited.abandonable), default=0)


def tensor_bytes(batch: Any) -> int:
    """Bytes of the tensors in anything that can be pickled; each storage counts once, as it is sent."""
    storages = {}

    class Counting(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
                return True

    Counting(io.BytesIO()).dump(batch)
    return sum(storages.values())


def _measured(collate, samples: Any) -> int:
    return tensor_bytes(collate(samples))


def _mb(size: float) -> str:
    return f'{size / 1e6:.0f} MB'
