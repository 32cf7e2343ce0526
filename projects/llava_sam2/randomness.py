"""Random numbers that depend on a key and on nothing else.

Every draw of a training step (noise, corruption, points, templates, dropout) is keyed by what it belongs to: seed,
step, sample, purpose. So the number of ranks or workers, the order of work, the device and a resume change nothing.

What is drawn for the rows of a batch comes for all rows at once from Philox4x32-10 (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), a function of counter and key without a state: docs/decisions.md, "Draws come from
a counter".
"""

import hashlib

import torch

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_LOW = 0xFFFFFFFF  # 32 bits


def seed_for(*key: int | str) -> int:
    """A stable 63-bit seed for a key of integers and strings, equal on every machine and Python version."""
    text = '\x1f'.join(f'{type(part).__name__}:{part}' for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little') >> 1


def generator_for(*key: int | str) -> torch.Generator:
    """A fresh ``torch.Generator`` on the CPU, seeded by ``seed_for(*key)``."""
    return torch.Generator().manual_seed(seed_for(*key))


def words(keys: torch.Tensor, count: int, places: torch.Tensor | None = None) -> torch.Tensor:
    """Uniform integers (R, count) of 32 bits, as int64, on the device of the keys; the same on every device.

    Number i of a row is word ``i % 4`` of Philox4x32-10 at the counter ``(i // 4, place, 0, 0)``: it depends on key,
    place and i, and neither on ``count`` nor on other rows.

    Args:
        keys: (R,) int64, such as seeds by :func:`seed_for`.
        count: numbers per row, fewer than 2^34.
        places: (R,) int64 below 2^32, for several rows of one key; 0 by default.
    """
    if keys.is_cuda:
        from .philox_kernel import philox_words  # Triton is there where torch was built for CUDA

        return philox_words(keys, -(-count // 4), places).flatten(1)[:, :count]
    counter = keys.new_zeros(len(keys), -(-count // 4), 4)
    counter[..., 0] = torch.arange(counter.shape[1], device=keys.device)
    if places is not None:
        counter[..., 1] = places[:, None]
    return philox(counter, torch.stack((keys & _LOW, keys >> 32 & _LOW), dim=-1)[:, None]).flatten(1)[:, :count]


def uniform(keys: torch.Tensor, count: int, places: torch.Tensor | None = None) -> torch.Tensor:
    """Uniform float32 (R, count), see :func:`words`: (word + 1/2) / 2^32, rounded, at most 1 - 2^-24.

    So from 2^-33 on, never 0 and never 1, and near 0 as fine as 32 bits allow.
    """
    return words(keys, count, places).float().add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)


def exponential(keys: torch.Tensor, count: int, places: torch.Tensor | None = None) -> torch.Tensor:
    """Exponential float32 (R, count) of mean 1, from 2^-33 to 16.6; see :func:`words`. Devices differ by rounding.

    The minus logarithm is Gumbel noise, from -2.8 to 22.9; its upper tail, which decides, is where ``uniform`` is fine.
    """
    return uniform(keys, count, places).neg_().log1p_().neg_()


def philox(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Philox4x32-10 of counters (..., 4) under keys (..., 2) that broadcast; words of 32 bits, as int64.

    A product of two words may pass 2^63; two's complement keeps all its 64 bits.
    """
    factors, steps = (_pair(*values, counter) for values in (_MULTIPLIERS, _KEY_STEPS))
    numbers = torch.arange(_ROUNDS, device=key.device).view(-1, *(1, ) * counter.dim())
    round_keys = (torch.stack(key.unbind(-1)) + steps * numbers) & _LOW
    round_keys[::2] = round_keys[::2].flip(1)
    # Words 0 and 2 are multiplied, and each makes the other's next value. Here they lie in one tensor and simply change
    # their places in it with every round, for half the kernels.
    even, odd = torch.stack(counter[..., ::2].unbind(-1)), torch.stack(counter[..., 1::2].unbind(-1))
    for round_key, factor in zip(round_keys, (factors, factors.flip(0)) * (_ROUNDS // 2)):
        product = even * factor
        even = product >> 32
        even[0] ^= odd[1]
        even[1] ^= odd[0]
        even ^= round_key
        even &= _LOW
        odd = product  # of which only the low words count
    odd &= _LOW
    return torch.stack((even[0], odd[0], even[1], odd[1]), dim=-1)


def _pair(first: int, second: int, like: torch.Tensor) -> torch.Tensor:
    """Two numbers (2, 1, ...) for each word of ``like``; filled on its device, so that the host waits for no copy."""
    pair = like.new_full((2, *(1, ) * (like.dim() - 1)), first)
    pair[1] = second
    return pair
