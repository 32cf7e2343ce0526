"""Batches of an evaluation, the same for any number of ranks."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Dataset, Sampler

from dual_loop.datasets.shared_memory import check_shared_memory
from dual_loop.datasets.workers import AwaitedLoader
from llava_sam2.progress import Progress

from .processes import Processes


@DATA_SAMPLERS.register_module()
class GlobalBatchSampler(Sampler[list[int]]):
    """Batches of consecutive samples, formed before they are shared: rank r of W takes batches r, r + W, ...

    A prediction depends in its last bits on the other samples of its batch, and a pixel at the threshold may flip with
    them; only the same batches give the same figures. Every rank gets equally many, so that hooks may communicate
    after each one: where they do not divide evenly, the last turn repeats the first batches, and the metric has to
    count a sample once.

    Args:
        sampler: the loader's own; only its data set counts here, in its order.
        batch_size: samples of a batch.

    Raises:
        ValueError: for a sampler that shuffles.
    """

    def __init__(self, sampler: Sampler, batch_size: int):
        if getattr(sampler, 'shuffle', False):
            raise ValueError('GlobalBatchSampler keeps the order of the data set: set shuffle=False in the sampler '
                             'beside it')
        self.num_samples = len(sampler.dataset)
        self.batch_size = batch_size
        self.num_batches = math.ceil(self.num_samples / batch_size)
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Batches of each rank."""
        return math.ceil(self.num_batches / self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for turn in range(len(self)):
            first = (turn * self.world_size + self.rank) % self.num_batches * self.batch_size
            yield list(range(first, min(first + self.batch_size, self.num_samples)))


def answer_in_batches(batches: Dataset, answer: Callable[[Any], list[dict[str, Any]]], num_samples: int | None,
                      processes: Processes, num_workers: int = 2, description: str = '') -> list[dict[str, Any]] | None:
    """Answer all batches, each in one of the processes.

    Batches are formed before they are shared, so any number of processes answers the same ones.

    Args:
        batches: item ``i`` is batch ``i`` of the evaluation, or the error that stands for it: an error that a worker
            raised would come with the worker's traceback in place of its own message.
        answer: the samples of a batch, as they stand in the results.
        num_samples: of all batches, None if that is not known before.
        processes: to share with.
        num_workers: processes that read and prepare batches for this one; 0 reads here.
        description: beside the progress bar.

    Returns:
        The samples of all batches in order; None on all ranks but the first.
    """
    share = processes.share(len(batches))
    loader = AwaitedLoader(DataLoader(batches, batch_size=None, sampler=share, num_workers=num_workers,
                                      collate_fn=_as_it_is), 'the evaluation (--num-workers)', processes.loader_timeout)
    if len(share):
        check_shared_memory([loader])
    with Progress(num_samples, f'evaluation {description}'.strip(), 'sentences', shown=processes.rank == 0) as progress:
        for number, batch in zip(share, loader):
            if isinstance(batch, Exception):
                raise batch
            processes.hand_in(number, answer(batch))
            progress.set(processes.done)
        if processes.rank > 0:
            return None
        samples = []
        for batch in processes.collect(len(batches)):
            samples += batch
            progress.set(processes.done)
    return samples


def _as_it_is(batch: Any) -> Any:
    return batch
