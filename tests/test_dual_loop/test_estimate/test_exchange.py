"""Bytes of a step's exchange against a ring that is walked."""

import pytest

from dual_loop.estimate.exchange import exchanged_bytes
from dual_loop.estimate.kept import Sharding


def walked(values: int, ranks: int, gather_only: bool = False) -> int:
    """Values that rank 0 sends while all get the sum (or all pieces) of ``values``, a piece to its neighbour a turn."""
    piece, sent = values // ranks, 0
    have = [[{rank} for _ in range(ranks)] for rank in range(ranks)]  # whose share of a piece a rank has summed
    for turn in range(ranks - 1 if not gather_only else 0):
        told = [(rank, (rank - turn) % ranks) for rank in range(ranks)]
        for rank, place in told:
            have[(rank + 1) % ranks][place] |= have[rank][place]
        sent += piece
    if not gather_only:
        assert all(have[rank][(rank + 1) % ranks] == {*range(ranks)} for rank in range(ranks))
    return sent + piece * (ranks - 1)


@pytest.mark.parametrize('ranks', [2, 8, 64])
def test_two_averages_and_the_update(ranks):
    count = 64 * 1000
    averages = 2 * 4 * walked(count, ranks)
    with_ddp = averages + 4 * walked(count, ranks)
    reduced = walked(count, ranks) - walked(count, ranks, gather_only=True)
    with_zero = averages + 2 * reduced + 2 * walked(count, ranks, gather_only=True)
    assert exchanged_bytes(count, 2, Sharding(ranks)) == pytest.approx(with_ddp)
    assert exchanged_bytes(count, 2, Sharding(ranks, stage=2, bf16=True)) == pytest.approx(with_zero)


def test_one_rank_tells_nobody():
    assert exchanged_bytes(1000, 2, Sharding()) == 0
