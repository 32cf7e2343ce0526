"""Pictures of what the loops do: masks and region cells over images, and rows of such pictures."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Apart for colour-blind readers too (after Okabe and Ito, 2008), brightened for photographs.
PROMPT_COLOUR = (255, 149, 0)
PREDICTED_COLOUR = (38, 132, 255)
TARGET_COLOUR = (0, 184, 124)

PAPER, INK, FAINT_INK, PILL = (255, 255, 255), (28, 32, 38), (112, 120, 130), (238, 240, 243)
MARGIN, GAP, HEADER, RADIUS = 16, 14, 24, 8


def overlay_mask(image: Tensor, mask: Tensor, colour: tuple[int, int, int] = PREDICTED_COLOUR, alpha: float = 0.45,
                 contour: int = 2) -> Tensor:
    """Tint the inside of a mask and draw its border, inside the mask.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W) bool or number; non-zero is inside.
        colour: red, green, blue, 0..255.
        alpha: share of the colour inside the mask, 0 (none) to 1 (opaque).
        contour: width of the opaque border in pixels, 0 for none. Where the picture's frame cuts the object there is
            no border.

    Returns:
        A new (3, H, W) uint8 tensor on the CPU.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f'overlay_mask needs a (3, H, W) uint8 image, got {image.dtype} {tuple(image.shape)}')
    if mask.shape != image.shape[1:]:
        raise ValueError(f'mask {tuple(mask.shape)} and image {tuple(image.shape)} differ in size: resize one of them')
    image, inside = image.cpu(), (mask != 0).cpu()
    paint = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1)
    tinted = (image * (1 - alpha) + paint * alpha).round().to(torch.uint8)
    result = torch.where(inside, tinted, image)
    if contour > 0:
        # Erosion; the padding of max pooling is neutral, so the frame counts as inside.
        window = 2 * contour + 1
        outside_near = F.max_pool2d((~inside).float()[None, None], window, stride=1, padding=contour)[0, 0] > 0
        result = torch.where(inside & outside_near, paint.to(torch.uint8), result)
    return result


def panel(image1: Tensor, mask1: Tensor, caption: str, image2: Tensor, predicted: Tensor, target: Tensor, *,
          source: str = '', iou: float | None = None, height: int = 256) -> Image.Image:
    """One row: image 1 with its mask, the caption, image 2 with the predicted mask, image 2 with the true mask.

    Args:
        image1, image2: (3, H, W) uint8; the same image twice for single frames.
        mask1, predicted, target: (h, w) bool or number of any size; they are stretched over their image.
        caption: any text; it is wrapped, shrunk a little if it is long, and cut with an ellipsis if that is not enough.
        source: name of the data set, shown under the caption.
        iou: of predicted against target, shown on the prediction.
        height: of the pictures, in pixels.

    Returns:
        An RGB picture of a little more than this height.
    """
    cells = [('image 1 + mask', draw_mask(image1, mask1, PROMPT_COLOUR, height)),
             ('caption', _draw_caption(caption, source, height)),
             ('image 2 + predicted', draw_mask(image2, predicted, PREDICTED_COLOUR, height)),
             ('image 2 + true', draw_mask(image2, target, TARGET_COLOUR, height))]
    if iou is not None:
        _pill(ImageDraw.Draw(cells[2][1]), (8, 8), f'IoU {iou:.2f}', PREDICTED_COLOUR, PAPER)
    return picture_row(cells)


def picture_row(cells: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures of one height side by side on paper, each below its label."""
    width = 2 * MARGIN + sum(picture.width for _, picture in cells) + GAP * (len(cells) - 1)
    sheet = Image.new('RGB', (width, cells[0][1].height + HEADER + 2 * MARGIN - 4), PAPER)
    draw = ImageDraw.Draw(sheet)
    left, top = MARGIN, MARGIN + HEADER - 4
    for label, picture in cells:
        draw.text((left, top - 8), label, fill=FAINT_INK, font=text_font(13), anchor='ls')
        sheet.paste(picture, (left, top), _rounded(picture.size))
        left += picture.width + GAP
    return sheet


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def draw_mask(image: Tensor, mask: Tensor, colour: tuple[int, int, int], height: int) -> Image.Image:
    """A picture of this height with a mask over it; see ``panel`` for the tensors."""
    # Both are brought to the display size first, so that the border is sharp whatever the image's size.
    resized, tiny = _displayed(image, height)
    size = resized.size
    soft = Image.fromarray((mask != 0).cpu().to(torch.uint8).mul(255).contiguous().numpy())
    soft = soft.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.BILINEAR)
    inside = _pixels(soft) >= 128
    drawn = overlay_mask(_pixels(resized), inside, colour, contour=0)
    # The white line keeps a blue mask visible on a blue object.
    for paint, width in ((PAPER, 4), (colour, 3)):
        drawn = overlay_mask(drawn, inside, paint, alpha=0, contour=width)
    return Image.fromarray(drawn.permute(1, 2, 0).contiguous().numpy())


def draw_cells(image: Tensor, cells: Tensor, colour: tuple[int, int, int], height: int) -> Image.Image:
    """A picture of this height under the grid of a region prompt, the cells that are on tinted.

    Args:
        image: (3, H, W) uint8.
        cells: (g, g) bool.
    """
    resized, _ = _displayed(image, height)
    width, grid = resized.width, len(cells)
    rows, columns = (torch.arange(length) * grid // length for length in (height, width))
    drawn = overlay_mask(_pixels(resized), cells.cpu()[rows][:, columns], colour, alpha=0.35, contour=0)
    picture = Image.fromarray(drawn.permute(1, 2, 0).contiguous().numpy())
    lines = Image.new('L', picture.size, 0)
    draw = ImageDraw.Draw(lines)
    for number in range(1, grid):
        # The first pixel of the next cell, as in the rows and columns above.
        x, y = -(-number * width // grid), -(-number * height // grid)
        draw.line((x, 0, x, height), fill=110)
        draw.line((0, y, width, y), fill=110)
    picture.paste(PAPER, mask=lines)
    return picture


def _displayed(image: Tensor, height: int) -> tuple[Image.Image, bool]:
    """An image at display height, and whether it is so small that its pixels are kept square."""
    source = Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy())
    tiny = source.height * 3 <= height
    size = (max(1, round(source.width * height / source.height)), height)
    return source.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS), tiny


def _pixels(picture: Image.Image) -> Tensor:
    """(3, H, W) for RGB, (H, W) for grey."""
    channels = len(picture.getbands())
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(picture.height, picture.width, channels).permute(2, 0, 1)
    return pixels if channels > 1 else pixels[0]


def _draw_caption(caption: str, source: str, height: int) -> Image.Image:
    picture = Image.new('RGB', (height, height), PAPER)
    draw = ImageDraw.Draw(picture)
    room = height - (34 if source else 0)
    text = ' '.join(caption.split())[:height**2 // 24]  # no more than could fit, so that run-away captions cost nothing
    for size in (20, 18, 16, 14, 13):
        font = text_font(size)
        line_height = round(size * 1.35)
        lines = wrap(text, font, height - 4) if text else ['(no caption)']
        if len(lines) * line_height <= room:
            break
    else:
        lines = lines[:room // line_height]
        lines[-1] = _with_ellipsis(lines[-1], font, height - 4)
    for row, line in enumerate(lines):
        draw.text((0, row * line_height), line, fill=INK if text else FAINT_INK, font=font)
    if source:
        _pill(draw, (0, height - 24), source, PILL, FAINT_INK, max_width=height)
    return picture


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break text into lines of at most ``width`` pixels at spaces; a word that is too long for a line is cut."""
    lines: list[str] = []
    line = ''
    for word in text.split():
        joined = f'{line} {word}' if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            length = max(1, bisect_right(range(len(word)), width, key=lambda n: font.getlength(word[:n])) - 1)
            lines.append(word[:length])
            word = word[length:]
        line = word
    return lines + [line] if line else lines


def _with_ellipsis(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while line and font.getlength(f'{line}…') > width:
        line = line[:-1]
    return f'{line.rstrip()}…'


def _pill(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, fill, ink, max_width: int | None = None):
    font = text_font(13)
    if max_width is not None and font.getlength(text) + 16 > max_width:
        text = _with_ellipsis(text, font, max_width - 16)
    left, top = position
    draw.rounded_rectangle((left, top, left + round(font.getlength(text)) + 16, top + 22), radius=11, fill=fill)
    draw.text((left + 8, top + 11), text, fill=ink, font=font, anchor='lm')


def _rounded(size: tuple[int, int]) -> Image.Image:
    """Paste mask with soft round corners: drawn four times as large, then reduced."""
    large = Image.new('L', (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, *(edge - 1 for edge in large.size)), radius=RADIUS * 4, fill=255)
    return large.resize(size, Image.Resampling.BOX)
