"""Random numbers that depend on a key and on nothing else.

Every draw of a training step (noise, corruption, points, templates, dropout) comes from a generator keyed by what it
belongs to: seed, step, sample. So the number of ranks or workers, the order of work and a resume change nothing.
"""

import hashlib

import torch


def seed_for(*key: int | str) -> int:
    """A stable 63-bit seed for a key of integers and strings, equal on every machine and Python version."""
    text = '\x1f'.join(f'{type(part).__name__}:{part}' for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little') >> 1


def generator_for(*key: int | str, device: torch.device | str = 'cpu') -> torch.Generator:
    """A fresh ``torch.Generator`` on ``device``, seeded by ``seed_for(*key)``."""
    return torch.Generator(device=device).manual_seed(seed_for(*key))
