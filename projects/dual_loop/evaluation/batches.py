"""Batches of an evaluation, the same for any number of ranks."""

import math
from collections.abc import Iterator

from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


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
