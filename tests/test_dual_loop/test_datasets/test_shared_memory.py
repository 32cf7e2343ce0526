"""The bytes of a batch, and whether those of all workers fit."""

import math
import os
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dual_loop.datasets import collate_samples
from dual_loop.datasets.shared_memory import batch_bytes, check_shared_memory, free_shared_memory, tensor_bytes
from dual_loop.datasets.workers import AwaitedLoader


class Samples(Dataset):
    """The samples, and which process has read them."""

    def __init__(self, samples: list):
        self.samples, self.owner = samples, os.getpid()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        assert os.getpid() != self.owner, 'read in the main process'
        return self.samples[index]


def loader(samples: list, name: str = 'loop 1', **options) -> AwaitedLoader:
    options = dict(batch_size=2, num_workers=3, collate_fn=collate_samples) | options
    return AwaitedLoader(DataLoader(Samples(samples), **options), name, 20)


def test_bytes_of_a_batch(make_sample):
    single, pair = make_sample(1), make_sample(2, pair=True)
    image = 3 * 112 * 112 * 4 + 3 * 128 * 128
    row = 4 * 4 + 2 * 128 * 128 + 8 + 8 + 4  # three masks, two numbers of images, a weight
    assert batch_bytes(loader([single, single])) == image + 2 * row  # the image is there once
    assert batch_bytes(loader([single, pair])) == 3 * image + 2 * row


def test_bytes_of_anything():
    @dataclass
    class Batch:
        pictures: list

    many = torch.zeros(1000, dtype=torch.float64)
    assert tensor_bytes(dict(a=[many[:10], many[10:]], b='text')) == 8000  # a storage is sent whole, and once
    tensor_bytes.__globals__['Batch'] = Batch
    assert tensor_bytes([torch.zeros(7, dtype=torch.uint8), (torch.zeros(2), )]) == 7 + 8
    with pytest.raises((pickle.PicklingError, AttributeError)):
        tensor_bytes(lambda: None)


def test_what_does_not_fit_is_refused_with_figures_and_remedy():
    samples = [torch.zeros(1_000_000, dtype=torch.uint8)] * 4
    loops = [loader(samples, collate_fn=None), loader(samples, 'loop 2', collate_fn=None, num_workers=0),
             loader(samples, 'validation', collate_fn=None, num_workers=1, prefetch_factor=4)]
    needed = 2 * 1_000_000 * (3 * 2 + 1 * 4) * 8
    check_shared_memory(loops, needed, processes=8)
    with pytest.raises(ValueError, match=r'need up to 160 MB.*loop 1: 2 MB a batch x 3 workers x 2 batches ahead; '
                       r'validation: 2 MB a batch x 1 workers x 4.*x 8 processes.*has 160 MB free.*--ipc=host or '
                       r'--shm-size=1g.*num_workers=0') as caught:
        check_shared_memory(loops, needed - 1, processes=8)
    assert '\n' not in str(caught.value) and 'loop 2' not in str(caught.value)


def test_without_workers_nothing_is_read_or_needed():
    check_shared_memory([loader([1, 2], num_workers=0)], free=0)


def test_the_processes_are_those_of_the_launcher(monkeypatch):
    samples = [torch.zeros(1000, dtype=torch.uint8)] * 2
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(ValueError, match='x 4 processes'):
        check_shared_memory([loader(samples, collate_fn=None)], free=2000 * 6 * 4 - 1)


def test_batches_that_are_items():
    items = DataLoader(Samples([dict(a=torch.zeros(5)), dict(a=torch.zeros(50))]), batch_size=None, sampler=[1, 0],
                       num_workers=1, collate_fn=len)
    items.collate_fn = same
    assert batch_bytes(AwaitedLoader(items, 'the evaluation', 20)) == 200


def same(batch):
    return batch


def test_free_bytes(tmp_path):
    status = os.statvfs(tmp_path)
    assert free_shared_memory(tmp_path) == pytest.approx(status.f_bavail * status.f_frsize, rel=0.1)
    assert free_shared_memory(tmp_path / 'none') == math.inf
