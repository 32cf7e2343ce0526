"""How long a sample's sequence will be, known from the index alone (for ``LengthGroupedSampler``)."""

import math
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

# Without a box: a tenth of the cells. Without an area: an outline fills seven tenths of its box.
_SHARE_WITHOUT_BOX = 0.1
_SHARE_OF_BOX = 0.7
_WORDS_TO_TOKENS = 1.5
_CHUNK = 10_000
_LARGEST = 2**53  # pixels; more is damage


def numbers_or_nan(values: object, count: int) -> list[float]:
    """``count`` numbers from an annotation, NaN where there is none: boxes and areas only estimate lengths here."""
    if not isinstance(values, list) or len(values) != count:
        return [math.nan] * count
    return [value if isinstance(value, (int, float)) and -_LARGEST < value < _LARGEST else math.nan for value in values]


def region_token_estimate(box_width: np.ndarray, box_height: np.ndarray, area: np.ndarray, image_width: np.ndarray,
                          image_height: np.ndarray, grid: int) -> np.ndarray:
    """Expected number of grid cells that an object touches.

    A convex shape of area A and extents w, h (in cells), laid on the grid at random, touches A + w + h + 1 cells on
    average: the area of its Minkowski sum with one cell. A shape touches at most the cells of its box.

    Args:
        box_width, box_height: (n,) extents of the object in pixels, NaN where unknown.
        area: (n,) its area in pixels, NaN where unknown.
        image_width, image_height: (n,) in pixels.
        grid: cells per side.

    Returns:
        (n,) int64, 1 .. grid * grid.
    """
    wide, high = box_width * grid / image_width, box_height * grid / image_height
    inside = np.where(np.isnan(area), _SHARE_OF_BOX * wide * high, area * grid * grid / (image_width * image_height))
    cells = np.minimum(inside + wide + high + 1, (np.ceil(wide) + 1) * (np.ceil(high) + 1))
    cells = np.nan_to_num(cells, nan=_SHARE_WITHOUT_BOX * grid * grid)
    return np.clip(np.rint(cells), 1, grid * grid).astype(np.int64)


def text_token_counts(texts: Iterable[str], tokenizer: Any | None) -> np.ndarray:
    """Number of tokens of each text: (n,) int64. Without a tokenizer one and a half per word."""
    if tokenizer is None:
        return np.fromiter((math.ceil(_WORDS_TO_TOKENS * len(text.split())) for text in texts), np.int64)
    counts = [len(ids) for chunk in _chunks(texts) for ids in tokenizer(chunk, add_special_tokens=False).input_ids]
    return np.asarray(counts, dtype=np.int64)


def tokenizer_digest(tokenizer: Any | None) -> str | None:
    """Equal for tokenizers that give the same tokens; None for one that cannot be compared (not a fast one)."""
    if tokenizer is None:
        return 'words'
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    return None if backend is None else sha256(backend.to_str().encode()).hexdigest()


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while chunk := list(islice(texts, _CHUNK)):
        yield chunk
