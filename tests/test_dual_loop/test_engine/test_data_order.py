"""Batches from any position against reading everything from the start."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Dataset
from xtuner.dataset.samplers import LengthGroupedSampler

from dual_loop.engine import compat
from dual_loop.engine.data_order import ResumableBatchSampler, build_dataloader, endless_batches
from dual_loop.engine.length_groups import GroupedByLengthSampler


class Numbers(Dataset):
    """Gives its index, and remembers which ones were read in this process."""

    def __init__(self, length: int):
        self.length, self.read = length, []
        self.modality_length = [1 + (7 * index) % 5 for index in range(length)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.read.append(index)
        return index


SAMPLERS = {
    'default': lambda data: DefaultSampler(data, shuffle=True, seed=3),
    'infinite': lambda data: InfiniteSampler(data, shuffle=True, seed=3),
    'length grouped': lambda data: GroupedByLengthSampler(data, 4, seed=3),
    'length grouped by xtuner': lambda data: LengthGroupedSampler(data, 4, length_property='modality_length', seed=3),
}


def read(kind: str, position: int, count: int, workers: int = 0, length: int = 17) -> tuple[list, list[int]]:
    data = Numbers(length)
    loader = DataLoader(data, batch_sampler=ResumableBatchSampler(SAMPLERS[kind](data), 4), num_workers=workers,
                        persistent_workers=workers > 0)
    return [batch.tolist() for batch in islice(endless_batches(loader, position), count)], data.read


@pytest.mark.parametrize('kind', SAMPLERS)
def test_goes_on_where_it_stopped(kind):
    whole, _ = read(kind, 0, 14)  # three epochs of 4 or 5 batches
    assert len({tuple(batch) for batch in whole}) > 10, 'every epoch has an order of its own'
    for position in range(12):
        rest, loaded = read(kind, position, 14 - position)
        assert rest == whole[position:]
        assert loaded == sum(rest, []), 'skipped samples are not loaded'


@pytest.mark.parametrize('kind', ['default', 'length grouped'])
def test_the_number_of_workers_changes_nothing(kind):
    assert read(kind, 3, 7, workers=2)[0] == read(kind, 3, 7)[0]


def test_epochs_leave_out_the_incomplete_batch_and_differ():
    batches, _ = read('default', 0, 8, length=19)  # DefaultSampler: 19 samples, 4 whole batches
    first, second = batches[:4], batches[4:]
    assert all(len(batch) == 4 for batch in batches)
    assert all(len(set(sum(epoch, []))) == 16 for epoch in (first, second)) and first != second
    order = torch.randperm(19, generator=torch.Generator().manual_seed(3)).tolist()
    assert first == [order[start : start + 4] for start in range(0, 16, 4)]


def test_less_than_a_batch_is_an_error():
    data = Numbers(3)
    with pytest.raises(ValueError, match='3 samples per rank, less than one batch of 4: lower batch_size'):
        ResumableBatchSampler(DefaultSampler(data), 4)


def build(accumulative_counts: int = 3, **sampler) -> DataLoader:
    spec = Config(dict(dataloader=dict(dataset=Numbers(50), batch_size=2, sampler=sampler))).dataloader
    runner = SimpleNamespace(seed=3, build_dataloader=Runner.build_dataloader)
    loader = build_dataloader(runner, spec, accumulative_counts)
    assert dict(spec.sampler) == sampler, 'the config stays as it was'
    return loader


@pytest.mark.parametrize('sampler', [
    dict(type=GroupedByLengthSampler),
    dict(type='GroupedByLengthSampler'),
    dict(type='dual_loop.engine.length_groups.GroupedByLengthSampler', per_device_batch_size=6),
    dict(type=LengthGroupedSampler, length_property='modality_length'),
    dict(type='xtuner.dataset.samplers.LengthGroupedSampler', length_property='modality_length'),
], ids=['class', 'name', 'path, with the right number', 'xtuner', 'path of xtuner'])
def test_grouping_by_length_takes_whole_steps(sampler):
    loader = build(**sampler)
    expected = list(LengthGroupedSampler(Numbers(50), 6, length_property='modality_length', seed=3))
    assert len(expected) == 54 and [index for batch in loader.batch_sampler for index in batch] == expected


def test_another_number_for_grouping_is_refused():
    with pytest.raises(ValueError, match='per_device_batch_size is 32, but .* = 6 samples .* leave it out'):
        build(type=GroupedByLengthSampler, per_device_batch_size=32)


def test_other_samplers_are_built_as_they_are():
    assert build(type=DefaultSampler, shuffle=True).batch_sampler.sampler.seed == 3
    with pytest.raises(KeyError, match='NoSuchSampler'):
        build(type='NoSuchSampler')


@pytest.mark.parametrize('sampler', [
    dict(type=LengthGroupedSampler, length_property='modality_length', shuffle=True, per_device_batch_size=6),
    dict(type=LengthGroupedSampler, length_property='modality_length', shuffle=True, _delete_=True),
    dict(type='GroupedByLengthSampler', shuffle=True, round_up=True),
], ids=['updated', 'with _delete_', 'name'])
def test_an_exchanged_sampler_loses_what_it_does_not_have(sampler):
    expected = list(LengthGroupedSampler(Numbers(50), 6, length_property='modality_length', seed=3))
    assert [index for batch in build(**sampler).batch_sampler for index in batch] == expected


def test_back_from_grouping_too():
    left = dict(length_property='modality_length', mega_batch_mult=2, per_device_batch_size=6)
    order = [list(build(type=DefaultSampler, shuffle=True, **more).batch_sampler) for more in (left, {})]
    assert order[0] == order[1]


@pytest.mark.parametrize('wrong', [dict(shufle=True), dict(shuffle=False), dict(round_up=False)])
def test_what_asks_for_something_else_stays_an_error(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        build(type=GroupedByLengthSampler, **wrong)


def test_arrays_of_lengths_suit_xtuner_s_sampler():
    """Our data sets give an array; XTuner's sampler takes that from a concatenation only."""
    data = Numbers(50)
    data.modality_length = np.asarray(data.modality_length, np.int32)
    spec = dict(dataset=data, batch_size=2, sampler=dict(type=LengthGroupedSampler, length_property='modality_length'))
    loader = build_dataloader(SimpleNamespace(seed=3, build_dataloader=Runner.build_dataloader), spec, 3)
    expected = list(LengthGroupedSampler(Numbers(50), 6, length_property='modality_length', seed=3))
    assert [index for batch in loader.batch_sampler for index in batch] == expected and loader.dataset[7] == 7


def test_another_batch_sampler_is_refused():
    loader = DataLoader(Numbers(8), batch_sampler=BatchSampler(range(8), 2, drop_last=True))
    with pytest.raises(ValueError, match='needs a ResumableBatchSampler, not BatchSampler: remove batch_sampler'):
        build_dataloader(SimpleNamespace(seed=3), loader, 1)


@pytest.mark.parametrize('imports', [['dual_loop'], ['dual_loop.registered']])
def test_a_stock_loop_s_sampler_loses_leftovers_too(imports):
    """Before the runner builds anything; this config has no model, so it ends there."""
    compat.apply()
    cfg = Config(dict(custom_imports=dict(imports=imports), train_dataloader=dict(
        batch_size=2, dataset=Numbers(8), sampler=dict(type=GroupedByLengthSampler, shuffle=True))))
    with pytest.raises(KeyError, match='model'):
        Runner.from_cfg(cfg)
    assert dict(cfg.train_dataloader.sampler) == dict(type=GroupedByLengthSampler)
