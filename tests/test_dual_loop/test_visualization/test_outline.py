"""Outlines leave the objects as they are."""

import numpy as np
import torch

from dual_loop.visualization.outline import LARGEST, beside_outlined


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
