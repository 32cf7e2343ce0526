"""An order of samples in which neighbours are of similar length, so that a batch has little padding."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import ConcatDataset, Dataset, Sampler


@DATA_SAMPLERS.register_module()
class GroupedByLengthSampler(Sampler[int]):
    """The order of XTuner's ``LengthGroupedSampler``, number for number, for data sets of many millions of samples.

    The samples are shuffled and cut into groups of ``mega_batch_mult`` batches of all ranks; within a group the longest
    comes first. The longest sample of all changes places with the first one: too little memory shows early.
    The last batch is filled up from the beginning, and rank r of W takes the places r, r + W, ...

    An epoch, or a place in one, costs a permutation and its sorting (docs/benchmarks.md).

    Args:
        dataset: has the lengths of its samples in ``length_property``, in a numpy array or a list; a ``ConcatDataset``
            is made of such.
        per_device_batch_size: samples of one rank that should be of similar length, those of an optimizer step; the
            loop gives it if the config does not.
        seed: the order is a function of it and of the epoch.
        length_property: attribute of the data set.
        mega_batch_mult: batches of a group; default 50, less where that would give under four groups.

    Raises:
        ValueError: there is not one length for every sample, or one is below 1.
    """

    def __init__(self, dataset: Dataset, per_device_batch_size: int, seed: int,
                 length_property: str = 'modality_length', mega_batch_mult: int | None = None):
        self.rank, self.world_size = get_dist_info()
        self.seed = seed
        self.epoch = 0
        self.lengths = sample_lengths(dataset, length_property)
        if self.lengths.min(initial=1) < 1:
            place = int(self.lengths.argmin())
            raise ValueError(f'{length_property} of sample {place} is {self.lengths[place]}: a length is at least 1; '
                             'XTuner marks samples without an image by negative ones, and every sample here has one')
        total_batch_size = per_device_batch_size * self.world_size
        self.num_samples = math.ceil(len(self.lengths) / total_batch_size) * per_device_batch_size
        if mega_batch_mult is None:
            mega_batch_mult = max(1, min(len(self.lengths) // (total_batch_size * 4), 50))
        self.group_size = mega_batch_mult * total_batch_size

    def __len__(self) -> int:
        """Samples of each rank."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        places = np.arange(self.rank, self.num_samples * self.world_size, self.world_size)
        return iter(memoryview(order[places % len(order)]))  # gives plain numbers without making a list of them

    def order(self) -> np.ndarray:
        """The order of the epoch for all ranks together: (len(dataset),) int64."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).numpy()
        whole = len(order) - len(order) % self.group_size
        for groups in (order[:whole].reshape(-1, self.group_size), order[None, whole:]):
            descending = np.argsort(-self.lengths[groups], axis=1, kind='stable')  # equal ones stay as shuffled
            groups[:] = np.take_along_axis(groups, descending, axis=1)
        longest = self.group_size * int(self.lengths[order[::self.group_size]].argmax())
        order[[0, longest]] = order[[longest, 0]]
        return order


def sample_lengths(dataset: Dataset, length_property: str) -> np.ndarray:
    """The lengths of all samples, (len(dataset),) int32.

    Raises:
        ValueError: a data set has not as many of them as samples.
    """
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([sample_lengths(part, length_property) for part in dataset.datasets])
    lengths = np.asarray(getattr(dataset, length_property), np.int32)
    if lengths.shape != (len(dataset), ):
        raise ValueError(f'{length_property} of {type(dataset).__name__} has shape {lengths.shape} for {len(dataset)} '
                         'samples: it must have one length for each')
    return lengths
