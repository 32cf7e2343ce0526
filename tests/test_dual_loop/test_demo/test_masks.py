"""Masks in the encodings of the formats, read back by COCO's own code."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dual_loop.demo.masks import mask_box, mask_polygons, mask_rle


def disc(radius, hole=0.0, height=90, width=120):
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(x - 70, y - 40)
    return (distance < radius) & (distance >= hole)


def test_run_lengths_give_the_mask_back():
    mask = disc(30, 12)
    rle = mask_rle(mask)
    assert rle['size'] == [90, 120] and isinstance(rle['counts'], str)
    assert np.array_equal(coco_mask.decode(rle), mask)


def test_box_is_x_y_width_height():
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:8, 11:23] = True
    mask[4, 12] = False
    assert mask_box(mask) == [11, 3, 12, 5]


@pytest.mark.parametrize('hole', [0.0, 12.0])
def test_polygons_cover_the_mask_and_leave_its_hole_open(hole):
    mask = disc(30, hole)
    polygons = mask_polygons(mask)
    assert len(polygons) == 1
    again = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))).astype(bool)
    assert (again & mask).sum() / (again | mask).sum() > 0.96
    assert again[40, 70] == (hole == 0)


def test_parts_have_a_polygon_each():
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:15, 5:15] = mask[20:35, 30:55] = True
    boxes = sorted((min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])) for p in mask_polygons(mask))
    assert np.allclose(boxes, [(5, 5, 15, 15), (30, 20, 55, 35)], atol=0.5)
