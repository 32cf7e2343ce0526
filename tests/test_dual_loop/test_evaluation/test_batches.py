from types import SimpleNamespace

import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from dual_loop.evaluation import GlobalBatchSampler


def shares(monkeypatch, num_samples: int, batch_size: int, world_size: int) -> list[list[list[int]]]:
    """The batches of every rank."""
    drawn = []
    for rank in range(world_size):
        monkeypatch.setattr('dual_loop.evaluation.batches.get_dist_info', lambda rank=rank: (rank, world_size))
        sampler = GlobalBatchSampler(SimpleNamespace(dataset=range(num_samples), shuffle=False), batch_size)
        drawn.append(list(sampler))
        assert len(sampler) == len(drawn[-1])
    return drawn


@pytest.mark.parametrize('num_samples', [1, 6, 7, 13])
@pytest.mark.parametrize('batch_size', [1, 3, 20])
@pytest.mark.parametrize('world_size', [1, 2, 3, 5])
def test_batches_in_turn_are_those_of_one_process(monkeypatch, num_samples, batch_size, world_size):
    plain = list(BatchSampler(SequentialSampler(range(num_samples)), batch_size, drop_last=False))
    of_ranks = shares(monkeypatch, num_samples, batch_size, world_size)
    assert len({len(batches) for batches in of_ranks}) == 1, 'a hook that communicates after each batch would hang'
    in_turn = [batch for turn in zip(*of_ranks, strict=True) for batch in turn]
    assert in_turn[: len(plain)] == plain
    assert all(batch in plain for batch in in_turn[len(plain):]) and len(in_turn) < len(plain) + world_size


def test_is_a_batch_sampler_of_a_loader():
    sampler = GlobalBatchSampler(DefaultSampler(range(5), shuffle=False), batch_size=2)
    loader = DataLoader(range(5), batch_sampler=sampler, collate_fn=list)
    assert list(loader) == [[0, 1], [2, 3], [4]] and len(loader) == 3


def test_shuffling_is_refused():
    with pytest.raises(ValueError, match='shuffle=False'):
        GlobalBatchSampler(DefaultSampler(range(5), shuffle=True), batch_size=2)
