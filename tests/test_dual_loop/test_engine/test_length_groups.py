"""The order of samples by length against XTuner's own sampler."""

import random
import tracemalloc

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

import dual_loop  # noqa: F401  the shims that let xtuner import
from dual_loop.engine import length_groups
from dual_loop.engine.length_groups import GroupedByLengthSampler


class Sized:
    """A data set of which only the lengths are known: reading a sample is an error."""

    def __init__(self, lengths):
        self.modality_length = lengths

    def __len__(self) -> int:
        return len(self.modality_length)


@pytest.fixture
def as_rank(monkeypatch):
    def set_rank(rank: int, world_size: int, *modules) -> None:
        for module in (length_groups, *modules):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world_size))

    return set_rank


@pytest.mark.parametrize('case', range(60))
def test_same_order_as_xtuner(case, as_rank):
    theirs = pytest.importorskip('xtuner.dataset.samplers.length_grouped')
    draw = random.Random(case)
    world_size = draw.choice([1, 2, 3, 8])
    as_rank(draw.randrange(world_size), world_size, theirs)
    lengths = [draw.randint(260, 260 + draw.choice([0, 2, 340])) for _ in range(draw.choice([1, 5, 17, 64, 400, 1500]))]
    batch, seed, mult = draw.choice([1, 2, 3, 8, 32]), draw.randrange(100), draw.choice([None, None, 1, 2, 7])
    cuts = sorted(draw.choices(range(len(lengths) + 1), k=2))
    parts = [lengths[start:stop] for start, stop in zip([0, *cuts], [*cuts, None])]
    plain = theirs.LengthGroupedSampler(ConcatDataset(list(map(Sized, parts))), batch, 'modality_length', mult, seed)
    data = draw.choice([
        Sized(np.array(lengths)), Sized(lengths), ConcatDataset([Sized(np.array(part, np.int16)) for part in parts]),
        ConcatDataset([Sized(parts[0]), ConcatDataset(list(map(Sized, parts[1:])))])])
    sampler = GroupedByLengthSampler(data, batch, seed, mega_batch_mult=mult)
    for epoch in (0, 1, 5):
        plain.set_epoch(epoch)
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert order == list(plain) and len(order) == len(sampler) == len(plain)
        assert all(type(number) is int for number in order)


def test_an_epoch_has_every_sample_and_similar_ones_in_a_step(as_rank):
    lengths = np.random.default_rng(0).integers(260, 601, 4000)
    ranks = []
    for rank in range(2):
        as_rank(rank, 2)
        ranks.append(list(GroupedByLengthSampler(Sized(lengths), 10, seed=1)))
    together = np.array(ranks).T.flatten()  # in the order in which the ranks read
    assert sorted(together) == list(range(4000))
    assert lengths[together[0]] == lengths.max()
    within, unordered = (np.ptp(values.reshape(-1, 20), axis=1).mean() for values in (lengths[together], lengths))
    assert within < 20 and unordered > 200


@pytest.mark.parametrize('length', [0, -300])
def test_a_length_below_one_is_an_error(length):
    data = ConcatDataset([Sized(np.array([300, 301])), Sized(np.array([300, length, 300]))])
    with pytest.raises(ValueError, match=f'modality_length of sample 3 is {length}: a length is at least 1'):
        GroupedByLengthSampler(data, 2, seed=0)


def test_other_than_one_length_per_sample_is_an_error():
    class Repeated(Sized):
        def __len__(self) -> int:
            return 2 * len(self.modality_length)

    data = ConcatDataset([Sized([300]), Repeated([300] * 3)])
    with pytest.raises(ValueError, match=r'modality_length of Repeated has shape \(3,\) for 6 samples'):
        GroupedByLengthSampler(data, 2, seed=0)


def test_millions_of_samples_stay_in_arrays():
    data = Sized(np.random.default_rng(0).integers(260, 601, 200_000))
    tracemalloc.start()
    try:
        sampler = GroupedByLengthSampler(data, 32, seed=0)
        places = iter(sampler)
        next(places)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 15 * len(data) and peak < 45 * len(data)  # bytes; a list of numbers alone has 40 for each
