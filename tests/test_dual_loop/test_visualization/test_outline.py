"""Outlines leave the objects as they are."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dual_loop.visualization.outline import LARGEST, beside_outlined, outlined_at
from dual_loop.visualization.palette import OUTLINES, PREDICTED_COLOUR, PROMPT_COLOUR


def halves(sheet, width):
    drawn = np.asarray(sheet)
    return drawn[:, :width], drawn[:, -width:]


def test_only_pixels_round_the_object_change():
    image = torch.randint(256, (3, 500, 600), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(500, 600, dtype=torch.bool)
    mask[200:260, 100:180] = True
    mask[0:50, 300:400] = True  # the frame cuts it
    sheet = beside_outlined(image, [(mask, (1, 2, 3))])
    plain, outlined = halves(sheet, 600)
    assert (plain == image.permute(1, 2, 0).numpy()).all()
    changed = (outlined != plain).any(2)
    assert not changed[mask].any()
    line = (outlined == (1, 2, 3)).all(2)
    assert line[199, 140] and line[230, 180] and not line[:, 299].all()
    rows, columns = changed.nonzero()
    near = np.zeros_like(changed)
    near[195:266, 95:186] = near[0:56, 294:406] = True
    assert near[rows, columns].all() and line[49:, 300:400].any()


def test_sizes():
    wide = torch.zeros(3, 30, 4 * LARGEST, dtype=torch.uint8)
    dot = torch.zeros(30, 4 * LARGEST, dtype=torch.bool)
    dot[15, 2000] = True
    sheet = beside_outlined(wide, [(dot, (255, 0, 0))])
    assert sheet.height == 8 and sheet.width == 2 * LARGEST + 16
    assert (np.asarray(sheet) == (255, 0, 0)).all(2).any(), 'one pixel is seen'
    small = beside_outlined(torch.zeros(3, 90, 130, dtype=torch.uint8), [])
    assert small.size == (2 * 390 + 16, 270)
    plain, outlined = halves(small, 390)
    assert (plain == outlined).all()


@pytest.mark.parametrize('size', [96, 128, 300])
def test_the_objects_own_pixels_stay_whatever_the_sizes(size):
    """Against a picture that PIL enlarges or reduces by itself, and the object as torch enlarges it."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 0:30] = mask[30:34, 30:50] = mask[50, 50] = True
    mask[25:28, 10:14] = False  # a hole
    drawn = np.asarray(outlined_at(image, mask, PROMPT_COLOUR, 256))
    way = Image.Resampling.NEAREST if size * 3 <= 256 else Image.Resampling.LANCZOS
    plain = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((256, 256), way))
    inside = F.interpolate(mask[None, None].float(), scale_factor=4, mode='nearest')[0, 0].bool().numpy()
    assert (drawn[inside] == plain[inside]).all()
    assert (drawn[~inside] == PROMPT_COLOUR).all(1).any(), 'there is a line'
    near = F.max_pool2d(torch.from_numpy(inside)[None, None].float(), 7, stride=1, padding=3)[0, 0].bool().numpy()
    assert (drawn[~near] == plain[~near]).all(), 'and nothing else'


def test_each_object_has_a_picture_of_its_own_above_what_its_colour_means():
    image = torch.full((3, 400, 400), 90, dtype=torch.uint8)
    outer, inner = torch.zeros(2, 400, 400, dtype=torch.bool)
    outer[100:300, 100:300] = inner[150:250, 150:250] = True  # the line of the inner one would lie on the outer one
    sheet = np.asarray(beside_outlined(image, [(outer, PROMPT_COLOUR), (inner, PREDICTED_COLOUR)]))
    assert sheet.shape == (428, 3 * 400 + 2 * 16, 3)
    plain, first, second = (sheet[:400, left:left + 400] for left in (0, 416, 832))
    assert (plain == 90).all() and (first[outer] == 90).all() and (second[inner] == 90).all()
    below = sheet[400:]
    for colour, left in ((PROMPT_COLOUR, 416), (PREDICTED_COLOUR, 832)):
        assert (below[:, left:left + 11] == colour).all(2).any()
        others = [each.colour for each in OUTLINES if each.colour != colour]
        assert not any((below[:, left:left + 400] == other).all(2).any() for other in others)
        assert (below[:, left + 16:left + 150] < 200).any(), 'and words'
    assert (below[:, :400] == 255).all()
