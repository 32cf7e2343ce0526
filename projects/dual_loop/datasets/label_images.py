"""Masks of one or of several objects in one picture: which pixels belong to which."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .images import not_black, of_mask_picture, read_mask_image
from .quarantine import BadSample

OBJECTS = ('auto', 'one', 'indexed')
#: See ``LabelledObject``.
WHOLE = -1
MAX_LEVELS = 1000
_BRIGHT = 128  # of 255
_VOID = 255  # of a palette, as in Pascal VOC: the border that belongs to no object
_INDEX_ZERO = 256  # stands for the index 0 of a palette in which that is a colour


@dataclass(frozen=True)
class LabelledObject:
    """An object of a mask picture.

    Attributes:
        level: number, index or packed colour of its pixels; ``WHOLE`` where it is all that is not black.
        width, height: of its box in pixels.
        area: in pixels.
    """

    level: int
    width: int
    height: int
    area: int


@dataclass(frozen=True)
class LabelledPicture:
    """What a mask picture holds.

    Attributes:
        height, width: in pixels.
        objects: in order of their levels.
        problems: what is wrong with it, a sentence each, beside these.
    """

    height: int
    width: int
    objects: list[LabelledObject]
    problems: list[str]


@dataclass(frozen=True)
class _Levels:
    """Each pixel's level (H, W), 0 outside; what colours levels have; whether a part is transparent, and whether a
    border was taken away."""

    values: np.ndarray
    colours: Callable[[list[int]], list[tuple[int, ...]]]
    cut_out: bool
    border: bool


def read_objects(path: str | Path, objects: str = 'auto') -> LabelledPicture:
    """The objects of a mask that is stored as a picture.

    Outside is what ``read_mask_image`` calls so. The rest is one object or several:

    - 'one': all of it is one object;
    - 'indexed': each number, index of a palette or colour is an object;
    - 'auto': as 'indexed', with two exceptions. Greys in which only the brightest, from 128 (of 255) on, fills a
      square of 3 x 3 pixels are one object with a soft edge. A picture with transparent parts of which most colours
      fill no such square is a cut-out, one object. A level that fills none beside two that do may be an edge, and is a
      problem.

    Index 255 of a palette that is no grey, beside others, is the border that Pascal VOC draws, and outside.

    Raises:
        BadSample: it cannot be read, is empty, or has too many colours for a mask.
    """
    try:
        levels = of_mask_picture(path, _levels)
    except BadSample as error:
        raise BadSample(f'{error.reason}; save it again as PNG, or remove the file', path) from error
    values, problems = levels.values, list[str]()
    numbers = _numbers(values)
    if not len(numbers):
        raise BadSample('the mask is empty: draw the object in it, or remove the file', path)
    if objects == 'one' or objects == 'auto' and len(numbers) > 1 and _is_one(levels, numbers, path):
        whole = _measure((values != 0).view(np.uint8), {1: WHOLE})
        return LabelledPicture(values.shape[0], values.shape[1], whole, problems)
    if objects == 'auto' and len(solid := _solid(values)) > 1:
        problems = [f'level {number} of the mask is nowhere three pixels wide, as in a soft edge: save it without '
                    "smoothing, or set objects='one' or 'indexed'" for number in numbers.tolist()
                    if number not in solid]
        numbers = np.array(sorted(solid))
    if len(numbers) > MAX_LEVELS:
        raise BadSample(f"has {len(numbers)} levels or colours, too many for objects: set objects='one' if all that is "
                        'not black is one object', path)
    single = len(numbers) == 1 and not problems and not levels.border
    found = _measure(values, {number: WHOLE if single else number for number in numbers.tolist()})
    return LabelledPicture(values.shape[0], values.shape[1], found, problems)


def read_object(path: str | Path, level: int) -> np.ndarray:
    """One object of a mask picture: (H, W) bool; nothing where it is not there. Raises ``BadSample``."""
    return read_mask_image(path) if level == WHOLE else of_mask_picture(path, _levels).values == level


def _levels(picture: Image.Image) -> _Levels:
    inside = not_black(picture)
    values = np.asarray(picture)
    border = False
    cut_out = picture.getbands()[-1] in ('A', 'a') and bool((values[..., -1] == 0).any())
    if picture.mode == 'P':
        numbers = range(256)
        palette = Image.new('P', (256, 1))
        palette.putdata(numbers)
        palette.putpalette(picture.palette)
        known = dict(enumerate(map(tuple, np.asarray(palette.convert('RGB'))[0].tolist())))
        known[_INDEX_ZERO] = known[0]
        values = values.astype(np.int32)
        values[values == 0] = _INDEX_ZERO
        rest = inside & (values != _VOID)
        if len(set(known[_VOID])) > 1 and rest.any() and (rest != inside).any():
            inside, border = rest, True
        colours = known.__getitem__
    elif values.ndim == 2:
        whole = picture.mode != 'F' or _are_whole(values[inside])
        values = np.where(inside, values, 0).astype(np.int64) if whole else inside.astype(np.int64)
        shift = 8 if picture.mode.startswith('I') and values.max(initial=0) > 255 else 0
        scale = 255 if picture.mode == '1' else 1

        def colours(level):
            return (min(255, abs(level) * scale >> shift), ) * 3
    elif picture.mode == 'LAB':  # whose colours Pillow cannot convert
        values = inside

        def colours(level):
            return 255, 255, 255
    else:
        plain = picture if picture.mode in ('RGB', 'RGBA') else picture.convert('RGBA')
        red, green, blue = np.moveaxis(np.asarray(plain).astype(np.int32), 2, 0)[:3]
        values = (red << 16) + (green << 8) + blue

        def colours(level):
            return level >> 16, level >> 8 & 255, level & 255
    return _Levels(np.where(inside, values, 0), lambda levels: [colours(each) for each in levels], cut_out,
                   border)


def _is_one(levels: _Levels, numbers: np.ndarray, path: str | Path) -> bool:
    """Whether all that is inside is one object. Raises ``BadSample`` for what is no mask."""
    colours = levels.colours(numbers.tolist())
    if all(red == green == blue for red, green, blue in colours):
        brightest = max(range(len(colours)), key=colours.__getitem__)
        return colours[brightest][0] >= _BRIGHT and _solid(levels.values) <= {int(numbers[brightest])}
    if levels.cut_out:
        return 2 * len(_solid(levels.values)) < len(numbers)
    if len(numbers) > 256:
        raise BadSample(f'has {len(numbers)} colours: a picture rather than a mask. Paint the object in one colour on '
                        'black', path)
    return False


def _numbers(values: np.ndarray) -> np.ndarray:
    """The different levels, sorted, 0 left out."""
    inside = values[values != 0]
    if not len(inside) or (inside == inside[0]).all():
        return inside[:1].astype(np.int64)
    if inside.min() > 0 and inside.max() < 2**16:  # without sorting millions of pixels
        return np.flatnonzero(np.bincount(inside))
    return np.unique(inside).astype(np.int64)


def _solid(values: np.ndarray) -> set[int]:
    """The levels that fill a square of 3 x 3 pixels somewhere, 0 left out."""
    if min(values.shape) < 3:
        return set()
    height, width = values.shape
    middle = values[1:-1, 1:-1]
    same = middle != 0
    for down in range(3):
        for right in range(3):
            same &= values[down:height - 2 + down, right:width - 2 + right] == middle
    return set(np.unique(middle[same]).tolist())


def _measure(values: np.ndarray, named: dict[int, int]) -> list[LabelledObject]:
    """The objects of the levels ``named``, called by what it gives."""
    if len(named) == 1:
        [(level, name)] = named.items()
        inside = values == level
        width, height = (int(np.ptp(np.flatnonzero(inside.any(axis)))) + 1 for axis in (0, 1))
        return [LabelledObject(name, width, height, int(inside.sum()))]
    rows, columns = np.nonzero(values)
    levels = values[rows, columns]
    order = np.argsort(levels, kind='stable')
    rows, columns, levels = rows[order], columns[order], levels[order]
    first = np.flatnonzero(np.r_[True, levels[1:] != levels[:-1]])
    extents = [np.maximum.reduceat(each, first) - np.minimum.reduceat(each, first) + 1 for each in (columns, rows)]
    areas = np.diff(np.r_[first, len(levels)])
    return [LabelledObject(named[level], *sizes) for level, *sizes in
            zip(levels[first].tolist(), *(each.tolist() for each in extents), areas.tolist()) if level in named]


def _are_whole(values: np.ndarray) -> bool:
    return bool((np.isfinite(values) & (np.abs(values) < 2**31) & (values == np.rint(values))).all())
