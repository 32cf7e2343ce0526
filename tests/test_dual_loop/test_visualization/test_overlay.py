"""Overlays pixel by pixel, and where the parts of a panel land."""

import pytest
import torch
from PIL import ImageFont

from dual_loop.visualization.overlay import (
    GAP,
    HEADER,
    MARGIN,
    PAPER,
    PREDICTED_COLOUR,
    PROMPT_COLOUR,
    TARGET_COLOUR,
    overlay_mask,
    panel,
    wrap,
)


def grey(size: int, value: int = 100) -> torch.Tensor:
    return torch.full((3, size, size), value, dtype=torch.uint8)


def square(size: int, start: int, stop: int) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[start:stop, start:stop] = True
    return mask


def test_tint_inside_nothing_outside():
    image = grey(6)
    result = overlay_mask(image, square(6, 2, 4), (200, 0, 101), alpha=0.5, contour=0)
    expected = grey(6)
    expected[:, 2:4, 2:4] = torch.tensor([150, 50, 100], dtype=torch.uint8).view(3, 1, 1)  # 100.5 rounds to even
    assert torch.equal(result, expected)
    assert (image == 100).all(), 'the input must not change'


def test_alpha_0_and_1():
    mask = square(6, 1, 5)
    assert torch.equal(overlay_mask(grey(6), mask, alpha=0, contour=0), grey(6))
    opaque = overlay_mask(grey(6), mask, (1, 2, 3), alpha=1, contour=0)
    assert opaque[:, 1, 1].tolist() == [1, 2, 3] and opaque[:, 0, 0].tolist() == [100] * 3


@pytest.mark.parametrize('contour', [1, 2])
def test_contour_is_the_outermost_ring_of_the_mask(contour):
    result = overlay_mask(grey(10), square(10, 1, 9), (255, 0, 0), alpha=0, contour=contour)
    ring = square(10, 1, 9) & ~square(10, 1 + contour, 9 - contour)
    assert torch.equal(result[0] == 255, ring)
    assert (result[1][ring] == 0).all() and (result[:, ~ring] == 100).all()


def test_no_contour_where_the_frame_cuts_the_object():
    result = overlay_mask(grey(6), square(6, 0, 3), (255, 0, 0), alpha=0, contour=1)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2, :3] = expected[:3, 2] = True
    assert torch.equal(result[0] == 255, expected)


def test_number_masks_count_as_inside_where_not_zero():
    mask = torch.tensor([[0, 255], [1, 0]], dtype=torch.uint8)
    result = overlay_mask(grey(2), mask, (0, 0, 0), alpha=1, contour=0)
    assert result[0].tolist() == [[100, 0], [0, 100]]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r'mask \(4, 4\) and image \(3, 6, 6\) differ'):
        overlay_mask(grey(6), square(4, 1, 2))
    with pytest.raises(ValueError, match=r'\(3, H, W\) uint8 image, got torch.float32'):
        overlay_mask(grey(6).float(), square(6, 1, 2))


def test_panel_places_the_four_parts_in_a_row():
    height = 96
    # Prompt mask in the upper half, prediction on the left, truth on the right, at three different resolutions.
    upper, left, right = torch.zeros(16, 16), torch.zeros(32, 32), torch.zeros(64, 64)
    upper[:8], left[:, :16], right[:, 32:] = 1, 1, 1
    sheet = panel(grey(16), upper, 'a cat', grey(32), left, right, height=height)
    assert sheet.mode == 'RGB' and sheet.width == 2 * MARGIN + 4 * height + 3 * GAP

    def is_tinted(column: int, x: float, y: float) -> bool:
        """Whether the pixel at the share (x, y) of the picture in this column differs from the grey of the image."""
        return sheet.getpixel((round(MARGIN + column * (height + GAP) + x * height),
                               round(MARGIN + HEADER - 4 + y * height))) != (100, 100, 100)

    assert is_tinted(0, 0.5, 0.25) and not is_tinted(0, 0.5, 0.75)
    assert is_tinted(2, 0.25, 0.5) and not is_tinted(2, 0.75, 0.5)
    assert is_tinted(3, 0.75, 0.5) and not is_tinted(3, 0.25, 0.5)
    for column, (x, y), colour in ((0, (0.5, 0.48), PROMPT_COLOUR), (2, (0.48, 0.5), PREDICTED_COLOUR),
                                   (3, (0.52, 0.5), TARGET_COLOUR)):
        pixel = sheet.getpixel((round(MARGIN + column * (height + GAP) + x * height),
                                round(MARGIN + HEADER - 4 + y * height)))
        assert pixel == colour, 'the contour is opaque'
    # Left of the prediction's right border: three columns of its colour, one of white, then the tint.
    row = [sheet.getpixel((MARGIN + 2 * (height + GAP) + x, MARGIN + HEADER - 4 + height // 2)) for x in range(43, 49)]
    assert row[1:] == [(255, 255, 255), *[PREDICTED_COLOUR] * 3, (100, 100, 100)]
    assert row[0] == tuple(round(0.55 * 100 + 0.45 * channel) for channel in PREDICTED_COLOUR)


def ink(sheet, box) -> int:
    """Number of pixels in the box that are not paper."""
    return sum(pixel != PAPER for pixel in sheet.crop(box).get_flattened_data())


def test_caption_source_and_iou_are_drawn_only_when_given():
    def draw(caption='', **kwargs):
        return panel(grey(64, 255), square(64, 0, 0), caption, grey(64, 255), square(64, 0, 0), square(64, 0, 0),
                     height=128, **kwargs)

    top = MARGIN + HEADER - 4
    text_box = (MARGIN + 128 + GAP, top, MARGIN + 256 + GAP, top + 100)
    pill_box = (MARGIN + 128 + GAP, top + 100, MARGIN + 256 + GAP, top + 128)
    badge_box = (MARGIN + 2 * (128 + GAP), top, MARGIN + 2 * (128 + GAP) + 128, top + 40)
    assert ink(draw('a small red circle on the left'), text_box) > ink(draw('a'), text_box) > 0
    assert ink(draw('a', source='sav'), pill_box) > ink(draw('a'), pill_box) == 0
    assert ink(draw('a', iou=0.5), badge_box) > ink(draw('a'), badge_box) == 0
    assert draw('a', iou=0.5).tobytes() != draw('a', iou=0.6).tobytes()


@pytest.mark.parametrize('caption', ['word ' * 400, 'x' * 3000, 'line\nbreak\tand  spaces', '<p>日本語 é</p>'])
def test_any_caption_stays_inside_its_column(caption):
    sheet = panel(grey(64, 255), square(64, 0, 0), caption, grey(64, 255), square(64, 0, 0), square(64, 0, 0),
                  source='a source with a name that is much too long for this column', height=128)
    top, left = MARGIN + HEADER - 4, MARGIN + 128 + GAP
    assert ink(sheet, (left - GAP, top, left - 1, top + 128)) == 0
    assert ink(sheet, (left + 128, top, left + 128 + GAP, top + 128)) == 0
    assert ink(sheet, (0, top + 128, sheet.width, sheet.height)) == 0
    assert ink(sheet, (left, top + 96, left + 128, top + 103)) == 0, 'the caption ends above the name of the source'


def test_wrap_keeps_every_word_and_no_line_is_too_long():
    font = ImageFont.load_default(14)
    text = 'the second object from the left, incomprehensibilities, and a_very_long_name_without_a_space_in_it'
    lines = wrap(text, font, 90)
    assert all(font.getlength(line) <= 90 for line in lines)
    assert ''.join(lines).replace(' ', '') == text.replace(' ', '')
    assert wrap('a b c', font, 200) == ['a b c'] and wrap('', font, 90) == []
