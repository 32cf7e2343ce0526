"""Outlines of objects on pictures, which leave the objects as they are."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from .lettering import text_font
from .palette import FAINT_INK, PAPER, Colour, outlines_of

Outlines = Sequence[tuple[Tensor, Colour]]

#: Longer sides of shown pictures: larger ones are reduced, smaller ones enlarged by a whole factor.
LARGEST, SMALLEST = 1600, 400
_GAP, _LEGEND = 16, 28


def outlined(image: Tensor, outlines: Outlines) -> tuple[Image.Image, Image.Image]:
    """A picture as it is, and the same with objects outlined.

    The line runs round an object, on pixels that are not its own; where the frame cuts the object there is none. With
    several objects the line of one may lie on another.

    Args:
        image: (3, H, W) uint8.
        outlines: masks (H, W) bool, each with the colour of its line. Without any, both pictures are equal.

    Returns:
        both at the size in which they are shown: not larger than ``LARGEST``, enlarged by a whole factor if small.
    """
    height, width = image.shape[1:]
    longer = max(height, width)
    factor = LARGEST / longer if longer > LARGEST else max(1, SMALLEST // longer)
    plain = shown(image, (max(1, round(width * factor)), max(1, round(height * factor))))
    drawn = plain
    for each in outlines:
        drawn = _outlined(drawn, *each)
    return plain, drawn


def beside_outlined(image: Tensor, outlines: Outlines) -> Image.Image:
    """A picture as it is, and to its right, for each object, the same with its outline, above what its colour means.

    Each object has a picture of its own, so that no line lies on another object. See :func:`outlined`.
    """
    plain = outlined(image, [])[0]
    pictures = [plain, *(outlined(image, [each])[1] for each in outlines)] if outlines else [plain, plain]
    width, height = plain.size
    known = {each.colour: each for each in outlines_of(colour for _, colour in outlines)}
    sheet = Image.new('RGB', (len(pictures) * (width + _GAP) - _GAP, height + _LEGEND * bool(known)), PAPER)
    for number, picture in enumerate(pictures):
        left, middle = number * (width + _GAP), height + _LEGEND // 2 + 1
        sheet.paste(picture, (left, 0))
        if number and outlines and (meaning := known.get(outlines[number - 1][1])):
            draw = ImageDraw.Draw(sheet)
            draw.rounded_rectangle((left, middle - 5, left + 10, middle + 5), radius=3, fill=meaning.colour)
            draw.text((left + 16, middle), meaning.meaning, fill=FAINT_INK, font=text_font(13), anchor='lm')
    return sheet


def outlined_at(image: Tensor, mask: Tensor, colour: Colour, height: int) -> Image.Image:
    """A picture of this height with an object outlined.

    Args:
        image: (3, H, W) uint8.
        mask: (h, w) bool or number, of any size: it is stretched over the image.
        colour: of the line.
        height: in pixels.
    """
    return _outlined(at_height(image, height), mask, colour)


def at_height(image: Tensor, height: int) -> Image.Image:
    """A picture (3, H, W) uint8, as it is, at a height in pixels."""
    return shown(image, (max(1, round(image.shape[2] * height / image.shape[1])), height))


def shown(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """A picture at another size (width, height). One that is much smaller keeps its pixels square."""
    source = Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy())
    tiny = source.height * 3 <= size[1]
    return source.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def inside_at(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask over a picture of this size (width, height): (height, width) bool. What a thin object touches counts."""
    source = Image.fromarray((mask != 0).cpu().to(torch.uint8).mul(255).contiguous().numpy())
    smaller = size[0] < source.width or size[1] < source.height
    resized = source.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(size[1], size[0]) > 0


def _outlined(plain: Image.Image, mask: Tensor, colour: Colour) -> Image.Image:
    """A copy with a line round the object, and a thin light one outside of it for grounds of its colour."""
    line, inside, drawn = max(2, round(max(plain.size) / 400)), inside_at(mask, plain.size), plain.copy()
    for paint, width in ((PAPER, line + 1), (colour, line)):
        drawn.paste(paint, mask=_ring(inside, width))
    return drawn


def _ring(inside: Tensor, width: int) -> Image.Image:
    """The pixels outside of a mask that are at most so far from it."""
    near = F.max_pool2d(inside[None, None].float(), 2 * width + 1, stride=1, padding=width)[0, 0] > 0
    return Image.fromarray((near & ~inside).to(torch.uint8).mul(255).numpy())
