"""Outlines of objects on pictures, which leave the objects as they are."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

#: Longer sides of shown pictures: larger ones are reduced, smaller ones enlarged by a whole factor.
LARGEST, SMALLEST = 1600, 400
_PAPER, _GAP = (255, 255, 255), 16


def outlined(image: Tensor, outlines: Sequence[tuple[Tensor, tuple[int, int, int]]]
             ) -> tuple[Image.Image, Image.Image]:
    """A picture as it is, and the same with objects outlined.

    The lines run round the objects, on pixels that are not theirs; where the frame cuts an object there is none.

    Args:
        image: (3, H, W) uint8.
        outlines: masks (H, W) bool, each with the colour of its line. Without any, both pictures are equal.

    Returns:
        both at the size in which they are shown: not larger than ``LARGEST``, enlarged by a whole factor if small.
    """
    height, width = image.shape[1:]
    longer = max(height, width)
    factor = LARGEST / longer if longer > LARGEST else max(1, SMALLEST // longer)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    way = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    plain = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize(size, way)
    line = max(2, round(max(size) / 400))
    drawn = plain.copy()
    for mask, colour in outlines:
        inside = Image.fromarray(mask.to(torch.uint8).mul(255).numpy())
        # Reduced, a thin object still has a pixel: what it touches counts.
        shown = inside.resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST)
        touched = torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).view(size[1], size[0]) > 0
        for paint, width_of_line in ((_PAPER, line + 1), (colour, line)):
            drawn.paste(paint, mask=_ring(touched, width_of_line))
    return plain, drawn


def beside_outlined(image: Tensor, outlines: Sequence[tuple[Tensor, tuple[int, int, int]]]) -> Image.Image:
    """The two pictures of ``outlined`` side by side, the untouched one on the left."""
    plain, drawn = outlined(image, outlines)
    sheet = Image.new('RGB', (2 * plain.width + _GAP, plain.height), _PAPER)
    sheet.paste(plain, (0, 0))
    sheet.paste(drawn, (plain.width + _GAP, 0))
    return sheet


def _ring(inside: Tensor, width: int) -> Image.Image:
    """The pixels outside of a mask that are at most so far from it."""
    near = F.max_pool2d(inside[None, None].float(), 2 * width + 1, stride=1, padding=width)[0, 0] > 0
    return Image.fromarray((near & ~inside).to(torch.uint8).mul(255).numpy())
