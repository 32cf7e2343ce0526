"""Bytes that are alive."""

import torch

from dual_loop.estimate.live_memory import BLOCK, LiveMemory
from dual_loop.estimate.shadow import empty


def test_counts_storages_once_and_until_they_go():
    with LiveMemory() as memory:
        first = empty(1000)  # made below the mode: not seen until something is done with it
        second = first + 1
        assert memory.live == -(-4000 // BLOCK) * BLOCK
        view = second.view(10, 100)
        del second
        assert memory.live == memory.peak == 4096
        third = view * 2
        assert memory.peak == 8192
        del view, third
        assert memory.live == 0 and memory.peak == 8192


def test_what_is_known_is_not_counted_and_kinds_are_told_apart():
    weight = empty(128)
    with LiveMemory(known=[weight]) as memory:
        same = weight.t()
        assert memory.live == 0
        with memory.kind('inner'):
            made = weight + same
        other = weight * 2
        assert memory.at_peak == dict(inner=512) | {'else': 512}
        del made
        assert memory.by_kind['inner'] == 0
        del other


def test_real_tensors():
    with LiveMemory(real=True) as memory:
        kept = torch.zeros(256) + 1
        assert memory.live == 1024
        del kept
    assert memory.live == 0 and memory.peak == 2048
