"""Procedural backgrounds: muted colours and textures on which the saturated objects of a scene stand out."""

import cv2
import numpy as np

from dual_loop.demo.world import BACKGROUNDS


def background_field(kind: str, seed: int, height: int, width: int) -> np.ndarray:
    """Draw a background.

    Args:
        kind: one of ``world.BACKGROUNDS``.
        seed: fixes every detail.
        height: pixels.
        width: pixels.

    Returns:
        float32 (height, width, 3) RGB, about 0..255, not clipped.
    """
    rng = np.random.default_rng(seed)
    tone = _TONES[kind](rng, height, width).astype(np.float32)  # how much lighter each pixel is than the background
    red, green, blue = BACKGROUNDS[kind] + rng.uniform(-8, 8, size=3)
    channels = ((1.04, red), (1.0, green), (0.96, blue))
    return cv2.merge([tone * np.float32(gain) + np.float32(offset) for gain, offset in channels])


def _noise(rng: np.random.Generator, height: int, width: int, cell_y: int, cell_x: int) -> np.ndarray:
    """Smooth noise, of unit variance at nodes ``cell_y`` x ``cell_x`` pixels apart; float32 (height, width)."""
    nodes = rng.standard_normal((-(-height // cell_y) + 1, -(-width // cell_x) + 1), dtype=np.float32)
    return cv2.resize(nodes, (width, height), interpolation=cv2.INTER_LINEAR)


def _axes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]


def _grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return 13 * _noise(rng, height, width, 5, 2) + 9 * _noise(rng, height, width, 28, 28)


def _sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return 6 * _noise(rng, height, width, 2, 2) + 9 * _noise(rng, height, width, 20, 36)


def _wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, _ = _axes(height, width)
    plank = float(rng.uniform(34, 56))
    tones = rng.normal(0, 9, size=height // 34 + 2).astype(np.float32)
    grain = 7 * np.sin(y / 2.6 + 5 * _noise(rng, height, width, 18, 90))
    seams = np.where(y % plank < 1.6, -34, 0).astype(np.float32)
    return grain + 4 * _noise(rng, height, width, 2, 24) + seams + tones[(y // plank).astype(int)]


def _tiles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = _axes(height, width)
    side = float(rng.uniform(36, 58))
    tones = rng.normal(0, 7, size=(height // 36 + 2, width // 36 + 2)).astype(np.float32)
    joints = np.where((y % side < 2.2) | (x % side < 2.2), -42, 0).astype(np.float32)
    return tones[(y // side).astype(int), (x // side).astype(int)] + joints + 3 * _noise(
        rng, height, width, 6, 6)


def _bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = _axes(height, width)
    tall = float(rng.uniform(18, 26))
    row = (y // tall).astype(int)
    along = x + (row % 2) * tall * 1.1
    column = (along // (tall * 2.2)).astype(int)
    tones = rng.normal(0, 9, size=(height // 18 + 2, width // 36 + 4)).astype(np.float32)
    mortar = np.where((y % tall < 2) | (along % (tall * 2.2) < 2), 44, 0).astype(np.float32)
    return tones[row, column] + mortar + 4 * _noise(rng, height, width, 3, 3)


def _sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, _ = _axes(height, width)
    clouds = np.maximum(_noise(rng, height, width, 40, 70) + 0.4 * _noise(rng, height, width, 14, 24), 0)
    return 44 * (y / height - 0.5) + 20 * clouds


def _paper(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, _ = _axes(height, width)
    lines = np.where(y % float(rng.uniform(16, 26)) < 1.6, -46, 0).astype(np.float32)
    return lines + 3 * _noise(rng, height, width, 8, 8)


def _fabric(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = _axes(height, width)
    thread = float(rng.uniform(5, 9))
    weave = 9 * np.sin(2 * np.pi * (x + y) / thread) * np.sin(2 * np.pi * (x - y) / thread)
    return weave.astype(np.float32) + 6 * _noise(rng, height, width, 16, 16)


_TONES = {'grass': _grass, 'wood': _wood, 'tiles': _tiles, 'sand': _sand, 'bricks': _bricks, 'sky': _sky,
          'paper': _paper, 'fabric': _fabric}
