"""One sample as the model sees it, as a picture: the pixels that both encoders read, caption and tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dual_loop.datasets import collate_samples
from llava_sam2.portable.image_processing import IMAGENET_MEAN, IMAGENET_STD

from .lettering import text_font, wrap
from .outline import at_height, outlined_at
from .palette import CHIPS, FAINT_INK, INK, PAPER, PROMPT_COLOUR, TARGET_COLOUR, outlines_of
from .token_view import Chip, SequenceBuilder, TokenView

LEGEND = {'image': 'image tokens', 'region': 'region tokens', 'slot': 'written during training', 'seg': '[SEG]'}
SUPERVISED = 'underlined: supervised'
MARGIN, GAP, HEADER, RADIUS = 16, 14, 24, 8
_CHIP_HEIGHT, _LINE_HEIGHT = 22, 30


@dataclass(frozen=True)
class SampleView:
    """What there is to show of one object of a sample.

    Attributes:
        source: name of the data set.
        sample_id: unique within the source.
        caption: the human caption, if there is one.
        panels: labels and pictures of one height.
        sequences: with which the sample is trained.
    """

    source: str
    sample_id: str
    caption: str | None
    panels: list[tuple[str, Image.Image]]
    sequences: list[TokenView]


def sample_views(loader: str, sample: Mapping[str, Any], builder: SequenceBuilder, height: int = 320
                 ) -> Iterator[SampleView]:
    """The views of a sample's objects, from the tensors that the model gets.

    Args:
        loader: see :meth:`SequenceBuilder.views`, which says what else may be wrong.
        sample: of a ``GroundedDataset``.
        builder: of the config's model.
        height: of the pictures, in pixels.
    """
    data = collate_samples([dict(sample)])
    for row, (sample_id, caption) in enumerate(zip(data['sample_ids'], data['captions'])):
        sequences = builder.views(loader, data, row)
        yield SampleView(data['sources'][row], sample_id, caption, _panels(loader, data, row, height), sequences)


def vision_image(pixel_values: Tensor) -> Tensor:
    """The picture behind the vision encoder's input: (3, S, S) ImageNet-normalised to uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((pixel_values * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _panels(loader: str, data: Mapping[str, Any], row: int, height: int) -> list[tuple[str, Image.Image]]:
    first, second = int(data['image1'][row]), int(data['image2'][row])
    cells, pixels = data['prompt_masks'][row], data['g_pixel_values']
    size, grounding_size = data['pixel_values'].shape[-1], pixels.shape[-1]
    name = 'image 1' if second != first else 'image 1 = image 2' if loader == 'loop 1' else 'image'
    # Each object beside its picture as it is; the vision encoder's is what the region's cells lie on.
    panels = [
        (f'{name}, {size} px', at_height(vision_image(data['pixel_values'][first]), height)),
        (f'region {int(cells.sum())} of {cells.numel()}',
         outlined_at(vision_image(data['pixel_values'][first]), cells, PROMPT_COLOUR, height)),
        (f'{name}, {grounding_size} px, mask', outlined_at(pixels[first], data['masks1'][row], PROMPT_COLOUR, height)),
    ]
    if second != first:
        panels += [(f'image 2, {grounding_size} px', at_height(pixels[second], height)),
                   ('image 2, mask to find', outlined_at(pixels[second], data['masks2'][row], TARGET_COLOUR, height))]
    return panels


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


def draw_sample(view: SampleView, note: str = '') -> Image.Image:
    """The whole view as one RGB picture, as high as its tokens need.

    Args:
        view: of a sample.
        note: a line below its name.
    """
    pictures = picture_row(view.panels)
    width = max(pictures.width, 900)
    sheet = _Sheet(width)
    sheet.text(f'{view.source} · {view.sample_id}', 13, FAINT_INK)
    if note:
        sheet.text(note, 13, PROMPT_COLOUR)
    sheet.text(view.caption if view.caption is not None else 'no caption', 24,
               INK if view.caption is not None else FAINT_INK)
    for sequence in view.sequences:
        sheet.space(14)
        sheet.text(f'{sequence.title} ({sequence.length})', 15, INK)
        if sequence.note:
            sheet.text(sequence.note, 13, FAINT_INK)
        sheet.space(4)
        sheet.chips(sequence.chips)
    sheet.space(12)
    sheet.chips([Chip(text, (), False, kind) for kind, text in LEGEND.items()]
                + [Chip(SUPERVISED, (), True, 'text')])
    outlines = outlines_of([PROMPT_COLOUR, TARGET_COLOUR])
    sheet.text('; '.join(f'{each.name} outline: {each.meaning}' for each in outlines), 13, FAINT_INK)
    whole = Image.new('RGB', (width, pictures.height + sheet.height), PAPER)
    whole.paste(pictures, (0, 0))
    whole.paste(sheet.picture(), (0, pictures.height - MARGIN // 2))
    return whole


def shown_text(chip: Chip) -> str:
    """The text of a chip with its spaces and line breaks made visible."""
    return chip.text.replace('\n', '\\n').replace(' ', '·') if chip.ids and chip.kind in ('text', 'tag') else chip.text


class _Sheet:
    """Text and chips from top to bottom. What is drawn is kept until the height is known."""

    def __init__(self, width: int):
        self.width = width
        self.height = 0
        self._drawn: list = []

    def space(self, pixels: int) -> None:
        self.height += pixels

    def text(self, text: str, size: int, ink: tuple[int, int, int]) -> None:
        font = text_font(size)
        for line in wrap(text, font, self.width - 2 * MARGIN) or ['']:
            top = self.height
            self._drawn.append(lambda draw, top=top, line=line: draw.text((MARGIN, top), line, fill=ink, font=font))
            self.height += round(size * 1.4)

    def chips(self, chips: Sequence[Chip]) -> None:
        font, left, right = text_font(14), MARGIN, self.width - MARGIN
        for chip in chips:
            text = shown_text(chip)
            width = min(round(font.getlength(text)) + 10, right - MARGIN)
            if left + width > right:
                left = MARGIN
                self.height += _LINE_HEIGHT
            box = (left, self.height, left + width, self.height + _CHIP_HEIGHT)
            self._drawn.append(lambda draw, box=box, text=text, chip=chip: _draw_chip(draw, box, text, chip))
            left += width + 4
        self.height += _LINE_HEIGHT

    def picture(self) -> Image.Image:
        picture = Image.new('RGB', (self.width, self.height), PAPER)
        draw = ImageDraw.Draw(picture)
        for each in self._drawn:
            each(draw)
        return picture


def _draw_chip(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], text: str, chip: Chip) -> None:
    (ink, ground), _ = CHIPS[chip.kind]
    left, top, right, bottom = box
    draw.rounded_rectangle(box, radius=5, fill=ground)
    draw.text((left + 5, (top + bottom) // 2), text, fill=ink, font=text_font(14), anchor='lm')
    if chip.supervised:
        draw.rectangle((left, bottom + 2, right, bottom + 4), fill=TARGET_COLOUR)


def _rounded(size: tuple[int, int]) -> Image.Image:
    """Paste mask with soft round corners: drawn four times as large, then reduced."""
    large = Image.new('L', (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, *(edge - 1 for edge in large.size)), radius=RADIUS * 4, fill=255)
    return large.resize(size, Image.Resampling.BOX)
