"""The kinds of damage, by name, and what may be expected of a data set afterwards."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Kind:
    """One kind of damage.

    Attributes:
        damage: (rng, root, file) -> what was done to the file, or None where it does not apply.
        suffixes: of the files it applies to; () for all.
        free: fields of a sample that may differ afterwards, since nothing in the file could tell ('*' for all).
        may_vanish: whether samples may be gone without a record, since nothing tells of them any more.
    """

    damage: Callable[[np.random.Generator, Path, Path], str | None]
    suffixes: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    may_vanish: bool = False


KINDS: dict[str, Kind] = {}
PIXELS = ('pixel_values', 'g_pixel_values', 'pixel_values1', 'g_pixel_values1', 'pixel_values2', 'g_pixel_values2')


def kind(*suffixes: str, free: tuple[str, ...] = (), may_vanish: bool = False):
    def register(damage):
        KINDS[damage.__name__] = Kind(damage, suffixes, free, may_vanish)
        return damage

    return register
