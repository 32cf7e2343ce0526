"""Stored masks to pixels, and pixels to the resolution of the mask decoder's target."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco

from .quarantine import BadSample

# Coverages are sums of a few float32 products; one half must not depend on their last bit.
_HALF = 0.5 + 1e-6


def decode_segmentation(segmentation: list | dict, height: int, width: int, path: str | Path,
                        stated: Sequence[float] | None = None) -> np.ndarray:
    """Decode one COCO-style segmentation.

    Args:
        segmentation: list of polygons [x1, y1, x2, y2, ...] in pixels (pixels under several polygons count once; those
            with fewer than three points have no inside and are passed over), or a run-length code
            ``{size: [H, W], counts}`` with counts as list of integers or compressed text.
        height, width: of the image as a viewer shows it, which the mask must fit.
        path: file it comes from, for the message.
        stated: (H, W) of the image as the file of the annotation has it, NaN where it says nothing. It is for polygons,
            which have no size of their own.

    Returns:
        (height, width) bool.

    Raises:
        BadSample: malformed, or made for another image size.
    """
    if isinstance(segmentation, list):
        if stated is not None and not np.isnan(stated).any():
            _check_size([int(side) if side == int(side) else side for side in map(float, stated)], height, width, path)
        return _decode_polygons(segmentation, height, width, path)
    if not isinstance(segmentation, dict) or not {'size', 'counts'} <= segmentation.keys():
        raise BadSample('a segmentation is neither a list of polygons nor {size, counts}', path)
    size, counts = segmentation['size'], segmentation['counts']
    _check_size(list(size) if isinstance(size, (list, tuple)) else size, height, width, path)
    runs = run_lengths(counts, path)
    # pycocotools returns uninitialised memory for runs that end early.
    if (runs < 0).any() or runs.sum() != height * width:
        raise BadSample(f'the runs of a mask do not add up to its {height} x {width} pixels', path)
    if isinstance(counts, list):
        return _pixels(coco.frPyObjects(dict(size=[height, width], counts=runs.tolist()), height, width))
    return _pixels(dict(size=[height, width], counts=counts))


def run_lengths(counts: list | str | bytes, path: str | Path) -> np.ndarray:
    """The run lengths of a COCO run-length code, background first: (runs,) int64.

    Compressed counts hold 5 bits a character (offset 48, bit 5 = more follows, sign in bit 4 of the last one); from
    the fourth run on the difference to the run before last is stored (pycocotools, common/maskApi.c).

    Raises:
        BadSample: not such a code.
    """
    if isinstance(counts, list):
        if not all(isinstance(run, int) and 0 <= run < 2**32 for run in counts):
            raise BadSample('the counts of a mask are not a list of whole numbers from 0', path)
        return np.asarray(counts, dtype=np.int64)
    if not isinstance(counts, (str, bytes)):
        raise BadSample(f'the counts of a mask are of type {type(counts).__name__}', path)
    if not counts.isascii():
        raise BadSample('the counts of a mask are not a COCO run-length code', path)
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise BadSample('the counts of a mask are not a COCO run-length code', path)
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    if place.max() > 6:
        raise BadSample('the counts of a mask are not a COCO run-length code', path)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values -= np.where(codes[last] & 16, np.int64(1) << (5 * (place[last] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def area_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resample a mask to ``size`` x ``size``: on where more than half of the target pixel's area is inside.

    An object too thin to fill half of any target pixel would vanish; it then keeps every pixel that it touches, so a
    non-empty mask never becomes empty.

    Args:
        mask: (H, W) bool.
        size: side of the result, the mask decoder's image size.

    Returns:
        (size, size) bool.
    """
    return _by_area(mask, size, size)


def _by_area(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """``area_mask`` for any height and width."""
    inside = np.zeros((height, width), dtype=bool)
    if not mask.any():
        return inside
    # One axis at a time, since OpenCV's area mode is exact in both directions only for that, and of the other axis
    # only what the object covers.
    rows = _extent(np.any(mask, axis=1))
    part = cv2.resize(mask[rows].astype(np.float32), (width, rows.stop - rows.start), interpolation=cv2.INTER_AREA)
    columns = _extent(part.any(axis=0))
    coverage = np.zeros((mask.shape[0], columns.stop - columns.start), dtype=np.float32)
    coverage[rows] = part[:, columns]
    coverage = cv2.resize(coverage, (coverage.shape[1], height), interpolation=cv2.INTER_AREA)
    inside[:, columns] = coverage > _HALF
    if not inside.any():
        inside[:, columns] = coverage > 0
    return inside


def mask_to_size(mask: np.ndarray, height: int, width: int, path: str | Path) -> np.ndarray:
    """Bring a mask that was stored at another resolution than its image to the image's pixels.

    Args:
        mask: (h, w) bool.
        height, width: of the image.
        path: the mask's file, for the message.

    Returns:
        (height, width) bool; enlarged bilinearly and cut at one half, which keeps outlines straight, or made smaller
        by area. What is too thin for that keeps the pixels that it touches, see ``area_mask``.

    Raises:
        BadSample: its proportions are not the image's, or rather those of the image before its EXIF tag turned it.
    """
    if mask.shape == (height, width):
        return mask
    rows, columns = mask.shape
    misfit, if_turned = (abs(columns - rows * ratio) for ratio in (width / height, height / width))
    # One and a half pixels for rounding, 5 % for pictures scaled by hand, unless it would fit better lying on its side.
    if misfit > 1.5 + 0.05 * columns or misfit > 1.5 + if_turned:
        raise BadSample(f'a mask of {columns} x {rows} pixels does not fit its image of {width} x {height}', path)
    if rows <= height and columns <= width:
        enlarged = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > _HALF
        if enlarged.any():
            return enlarged
    return _by_area(mask, height, width)


def _check_size(size: object, height: int, width: int, path: str | Path) -> None:
    if size != [height, width]:
        hint = '; sides swapped, or not the picture as its EXIF orientation turns it' if size == [width, height] else ''
        raise BadSample(f'a mask of size {size} belongs to an image of height, width [{height}, {width}]{hint}', path)


def _decode_polygons(polygons: list, height: int, width: int, path: str | Path) -> np.ndarray:
    limit = 10 * max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise BadSample('a polygon is not a list [x1, y1, x2, y2, ...] of at least three points', path)
        if not all(isinstance(x, (int, float)) and abs(x) < limit for x in polygon):  # NaN is not below either
            raise BadSample('a polygon has a coordinate that is no number or far outside the image', path)
    # Points and lines have no inside, and pycocotools takes the four numbers of a line for a box.
    areas = [polygon for polygon in polygons if len(polygon) >= 6]
    if not areas and polygons:
        raise BadSample('none of the polygons has three points', path)
    if not areas:
        return np.zeros((height, width), dtype=bool)
    return _pixels(coco.merge(coco.frPyObjects(areas, height, width)))


def _pixels(code: dict) -> np.ndarray:
    """(H, W) bool of a run-length code, by rows: pycocotools fills columns, which slows every later step threefold."""
    return cv2.transpose(coco.decode(code).T).view(bool)


def _extent(inside: np.ndarray) -> slice:
    positions = np.flatnonzero(inside)
    return slice(positions[0], positions[-1] + 1)
