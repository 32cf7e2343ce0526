import math

import pytest
import torch

from llava_sam2.randomness import exponential, generator_for, philox, seed_for, uniform, words

#: "philox4x32 10" of tests/kat_vectors of Random123: counter, key, result.
KNOWN_ANSWERS = [
    '00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8',
    'ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd',
    '243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1',
]


def keys(*names):
    return torch.tensor([seed_for(name) for name in names])


def kolmogorov_smirnov(values, distribution):
    """sqrt(n) times the largest distance of the empirical distribution from the given one; over 1.95 once in 1 000."""
    values, count = values.double().flatten().sort().values, values.numel()
    steps, expected = torch.arange(count + 1, dtype=torch.float64) / count, distribution(values)
    return math.sqrt(count) * max((steps[1:] - expected).max(), (expected - steps[:-1]).max()).item()


def test_a_key_is_its_parts_in_order():
    names = [(1, 23), (12, 3), (1, '23'), ('1', 23), (23, 1), (1, 2, 3), (), ('',)]
    assert len({seed_for(*name) for name in names}) == len(names)


def test_seeds_never_change():
    # Written down once: another value would make every earlier run impossible to repeat.
    assert seed_for('a', 1) == 2990713671386263668


def test_generators_of_equal_keys_draw_equal_numbers():
    first, second, other = (torch.rand(5, generator=generator_for(*key)) for key in ((1, 'a'), (1, 'a'), (2, 'a')))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_philox_gives_the_published_answers():
    known = torch.tensor([[int(word, 16) for word in line.split()] for line in KNOWN_ANSWERS])
    assert torch.equal(philox(known[:, :4], known[:, 4:6]), known[:, 6:])
    together = philox(known[:, None, :4].expand(3, 3, 4), known[None, :, 4:6])  # every counter under every key
    assert torch.equal(together.diagonal().T, known[:, 6:])


def test_words_are_philox_of_number_and_place():
    drawn = words(torch.tensor([0x299F31D0_A4093822]), 7, torch.tensor([5]))
    counters = torch.tensor([[0, 5, 0, 0], [1, 5, 0, 0]])
    assert torch.equal(drawn[0], philox(counters, torch.tensor([[0xA4093822, 0x299F31D0]])).flatten()[:7])
    assert torch.equal(words(torch.tensor([3, 4]), 9)[1], words(torch.tensor([4]), 9, torch.tensor([0]))[0])


@pytest.mark.parametrize('draw', [words, uniform, exponential])
def test_a_number_depends_on_key_place_and_index_alone(draw):
    together = draw(keys('a', 'b', 'c', 'b'), 50, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(draw(keys('c'), 50, torch.tensor([2]))[0], together[2])  # alone
    assert torch.equal(draw(keys('c', 'b', 'b', 'a'), 50, torch.tensor([2, 3, 1, 0])), together[[2, 3, 1, 0]])
    assert torch.equal(draw(keys('b', 'a'), 9, torch.tensor([1, 0])), together[[1, 0], :9])  # fewer
    assert len({tuple(row) for row in together.tolist()}) == 4


def test_uniform_numbers():
    drawn = uniform(keys(*range(8)), 100_003)
    assert drawn.dtype == torch.float32 and drawn.shape == (8, 100_003)
    assert kolmogorov_smirnov(drawn, lambda value: value) < 1.95
    assert drawn.mean().item() == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 12 / drawn.numel()))
    assert drawn.var().item() == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / drawn.numel()))
    assert torch.unique(drawn[0]).numel() > 0.99 * 100_003


def test_gumbel_noise():
    noise = -exponential(keys(*range(8)), 100_000).log()
    assert kolmogorov_smirnov(noise, lambda value: (-(-value).exp()).exp()) < 1.95
    assert noise.mean().item() == pytest.approx(0.5772157, abs=4 * math.sqrt(math.pi**2 / 6 / noise.numel()))
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)


def test_extreme_words(monkeypatch):
    """No noise is infinite, and its upper tail is as fine as 32 bits."""
    extreme = torch.tensor([[0, 1, 2, 2**32 - 1]])
    monkeypatch.setattr('llava_sam2.randomness.philox', lambda counter, key: extreme[None])
    drawn = uniform(torch.tensor([0]), 4)[0]
    assert drawn.tolist() == [2.0**-33, 3 * 2.0**-33, 5 * 2.0**-33, 1 - 2.0**-24]
    noise = -exponential(torch.tensor([0]), 4)[0].double().log()
    assert noise.tolist() == pytest.approx([33 * math.log(2), 33 * math.log(2) - math.log(3), 33 * math.log(2)
                                            - math.log(5), -math.log(24 * math.log(2))], rel=1e-6)


@pytest.mark.parametrize('other', [
    dict(names=range(1, 5)), dict(places=1), dict(shift=1)], ids=['next keys', 'next place', 'next number'])
def test_neighbours_are_uncorrelated(other):
    count = 100_000
    first = uniform(keys(*range(4)), count)
    places = torch.full((4, ), other.get('places', 0))
    second = uniform(keys(*other.get('names', range(4))), count, places).roll(other.get('shift', 0), dims=1)
    for a in first:
        for b in second:
            if not torch.equal(a, b):
                assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1].item()) < 4.5 / math.sqrt(count)


def test_purposes_draw_apart():
    purposes = [seed_for(0, 3, purpose, 'sample') for purpose in ('points', 'gumbel', 'corruption', 'mirror')]
    drawn = words(torch.tensor(purposes), 64)
    assert torch.unique(drawn).numel() > 250
