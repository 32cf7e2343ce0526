"""The example pictures of the page: scenes of the demo world in two frames, with the masks of their objects."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dual_loop.demo.rendering import draw_pair

#: Seed of a scene, number of one of its objects, and what it is called. Chosen among the first forty seeds for their
#: looks and because ``assets/tiny`` answers them well (docs/try.md has its share of all).
EXAMPLES = ((17, 0, 'the red ring'), (28, 0, 'the orange heart'), (26, 0, 'the checked cyan crescent'),
            (20, 2, 'the green circle'), (24, 2, 'the yellow star'), (33, 1, 'the cyan square'))


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture (3, H, W) uint8 and the visible pixels (K, H, W) bool of its objects."""

    image: Tensor
    objects: Tensor


@dataclass(frozen=True, eq=False)
class Example:
    """Two frames of a scene, object k the same in both; ``phrase`` names object ``target``."""

    first: Frame
    second: Frame
    target: int
    phrase: str


def draw_examples() -> list[Example]:
    """All of ``EXAMPLES``, equal on every machine."""
    return [_drawn(*each) for each in EXAMPLES]


def _drawn(seed: int, target: int, phrase: str) -> Example:
    first, second = (Frame(torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(masks))
                     for _, image, masks, _ in draw_pair(np.random.default_rng(seed)))
    return Example(first, second, target, phrase)
