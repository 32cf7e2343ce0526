"""The example pictures of the page: scenes of the demo world in two frames, with the masks of their objects."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dual_loop.demo.rendering import draw_pair

#: Seed of a scene, number of one of its objects, and what it is called. Chosen for looks among the first forty seeds.
EXAMPLES = ((10, 0, 'the cyan cross'), (33, 0, 'the yellow heart'), (39, 1, 'the striped green circle'),
            (22, 2, 'the green heart'), (4, 2, 'the green square'), (31, 1, 'the green ring'))


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
                     for _, image, masks in draw_pair(np.random.default_rng(seed)))
    return Example(first, second, target, phrase)
