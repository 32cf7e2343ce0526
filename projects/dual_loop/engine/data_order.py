"""Batches without end from any position: what a resumed run reads next is found by arithmetic, not by reading."""

import inspect
import logging
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, Sampler

from dual_loop.datasets.workers import AwaitedLoader

# Arguments of samplers. Where a config puts another sampler's type into the dict of the first, those of the first stay.
_GROUPING = {'length_property', 'mega_batch_mult', 'per_device_batch_size'}  # of no meaning to one that does not group
_ALWAYS = {'shuffle', 'round_up'}  # a sampler without the argument does it


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(BatchSampler):
    """Whole batches of a sampler, epoch after epoch, from a given position on.

    Skipping reads sample numbers and never data. An incomplete last batch is left out, so that every rank has as many
    rows in every step. mmengine's ``InfiniteSampler`` is one endless epoch.

    Args:
        sampler: gives the sample numbers of this rank.
        batch_size: samples per batch.

    Raises:
        ValueError: the sampler gives less than one batch.
    """

    def __init__(self, sampler: Sampler, batch_size: int):
        super().__init__(sampler, batch_size, drop_last=True)
        self.position = 0
        if self.batches_per_epoch < 1:
            raise ValueError(f'the data has {len(sampler)} samples per rank, less than one batch of {batch_size}: '
                             'lower batch_size, add data or raise its repeats')

    @property
    def batches_per_epoch(self) -> float:
        """Batches of one epoch; a sampler that never ends has a single one."""
        return math.inf if isinstance(self.sampler, InfiniteSampler) else len(self)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch that ``position`` (in batches since the start of training) lies in, from there."""
        epoch, skipped = (int(part) for part in divmod(self.position, self.batches_per_epoch))
        if hasattr(self.sampler, 'set_epoch'):  # torch's own sequential one, for example, has no use for it
            self.sampler.set_epoch(epoch)
        numbers = islice(iter(self.sampler), skipped * self.batch_size, None)
        while len(batch := list(islice(numbers, self.batch_size))) == self.batch_size:
            yield batch


def endless_batches(dataloader: DataLoader | AwaitedLoader, position: int) -> Iterator[Any]:
    """Collated batches of a loader with a :class:`ResumableBatchSampler`, from the ``position``-th on, without end."""
    order = dataloader.batch_sampler
    while True:
        order.position = position
        for batch in dataloader:
            position += 1
            yield batch


def build_dataloader(runner, dataloader: DataLoader | dict, accumulative_counts: int) -> DataLoader:
    """A loader whose place a resumed run finds without reading data; see :class:`ResumableBatchSampler`.

    A sampler that groups by length, ours or XTuner's, is told to group whole optimizer steps. What is left of another
    sampler's arguments in its dict is left out.

    Args:
        runner: builds it, with its seed.
        dataloader: a built one, or its entry in the config.
        accumulative_counts: batches per optimizer step.

    Raises:
        ValueError: another batch sampler, or a ``per_device_batch_size`` that is not a rank's share of a step.
    """
    if isinstance(dataloader, dict):
        dataloader = dict(dict(batch_sampler=dict(type=ResumableBatchSampler)), **dataloader)
        sampler = dataloader['sampler'] = without_leftovers(dataloader['sampler'])
        if 'per_device_batch_size' in _parameters(sampler):
            count = dataloader['batch_size'] * accumulative_counts
            if (given := sampler.get('per_device_batch_size', count)) != count:
                raise ValueError(f'sampler.per_device_batch_size is {given}, but a step takes batch_size x '
                                 f'accumulative_counts = {count} samples on each rank: leave it out '
                                 '(sampler.mega_batch_mult is what sets the size of the groups)')
            dataloader['sampler'] = dict(sampler, per_device_batch_size=count)
            if _sampler_class(sampler).__module__.startswith('xtuner.'):
                dataloader['dataset'] = _concatenated(dataloader['dataset'])
        dataloader = runner.build_dataloader(dataloader, seed=runner.seed)
    if not isinstance(dataloader.batch_sampler, ResumableBatchSampler):
        raise ValueError(f'the loop needs a ResumableBatchSampler, not {type(dataloader.batch_sampler).__name__}: '
                         'remove batch_sampler from the dataloader')
    return dataloader


def without_leftovers(sampler: dict | Sampler) -> dict | Sampler:
    """The sampler's dict without those arguments of another sampler that it has not; a misspelt one is an error later.

    mmengine merges dicts key by key: ``--cfg-options train_dataloader.sampler.type=...`` or a dict in a derived config
    leaves ``shuffle=True`` behind. It takes ``_delete_`` out of what it merges, but not in ``.update(sampler=...)``.
    """
    parameters = _parameters(sampler)
    if not parameters:
        return sampler
    left = set()
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        unknown = sampler.keys() - parameters.keys()
        left = {key for key in unknown if key in _GROUPING or key in _ALWAYS and sampler[key] is True}
    if left:
        print_log(f'{_sampler_class(sampler).__name__} has no argument {" and no ".join(sorted(left))}: left out',
                  'current', logging.WARNING)
    return {key: value for key, value in sampler.items() if key not in left | {'_delete_'}}


def _parameters(sampler: dict | Sampler) -> Mapping[str, inspect.Parameter]:
    """The arguments that the type of a sampler's dict takes; none if that is not known."""
    target = _sampler_class(sampler)
    return {} if target is None else inspect.signature(target).parameters


def _sampler_class(sampler: dict | Sampler) -> type | None:
    if not isinstance(sampler, dict):
        return None
    target = sampler['type']
    # An unknown name is reported when it is built.
    return DATA_SAMPLERS.get(target) if isinstance(target, str) else target


def _concatenated(dataset: Dataset | dict) -> Dataset:
    """For XTuner's sampler, which wants a list of lengths from a single data set; of several it takes arrays too."""
    dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    return dataset if isinstance(dataset, ConcatDataset) else ConcatDataset([dataset])
