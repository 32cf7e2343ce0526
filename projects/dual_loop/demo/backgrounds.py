"""Procedural backgrounds: muted colours and textures on which the saturated objects of a scene stand out."""

import cv2
import numpy as np

Field = tuple[tuple[int, int, int], np.ndarray]  # RGB at rest, and how much lighter each pixel is, (height, width)


def background_field(kind: str, seed: int, height: int, width: int) -> np.ndarray:
    """Draw a background.

    Args:
        kind: one of ``scene.BACKGROUNDS``.
        seed: fixes every detail.
        height: pixels.
        width: pixels.

    Returns:
        float32 (height, width, 3) RGB, about 0..255, not clipped.
    """
    rng = np.random.default_rng(seed)
    base, tone = _KINDS[kind](rng, height, width)
    red, green, blue = base + rng.uniform(-8, 8, size=3)
    tone = tone.astype(np.float32)
    channels = ((1.04, red), (1.0, green), (0.96, blue))
    return cv2.merge([tone * np.float32(gain) + np.float32(offset) for gain, offset in channels])


def _noise(rng: np.random.Generator, height: int, width: int, cell_y: int, cell_x: int) -> np.ndarray:
    """Smooth noise, of unit variance at nodes ``cell_y`` x ``cell_x`` pixels apart; float32 (height, width)."""
    nodes = rng.standard_normal((-(-height // cell_y) + 1, -(-width // cell_x) + 1), dtype=np.float32)
    return cv2.resize(nodes, (width, height), interpolation=cv2.INTER_LINEAR)


def _axes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]


def _grass(rng: np.random.Generator, height: int, width: int) -> Field:
    return (104, 118, 78), 13 * _noise(rng, height, width, 5, 2) + 9 * _noise(rng, height, width, 28, 28)


def _sand(rng: np.random.Generator, height: int, width: int) -> Field:
    return (196, 180, 146), 6 * _noise(rng, height, width, 2, 2) + 9 * _noise(rng, height, width, 20, 36)


def _wood(rng: np.random.Generator, height: int, width: int) -> Field:
    y, _ = _axes(height, width)
    plank = float(rng.uniform(34, 56))
    tones = rng.normal(0, 9, size=height // 34 + 2).astype(np.float32)
    grain = 7 * np.sin(y / 2.6 + 5 * _noise(rng, height, width, 18, 90))
    seams = np.where(y % plank < 1.6, -34, 0).astype(np.float32)
    return (146, 116, 88), grain + 4 * _noise(rng, height, width, 2, 24) + seams + tones[(y // plank).astype(int)]


def _tiles(rng: np.random.Generator, height: int, width: int) -> Field:
    y, x = _axes(height, width)
    side = float(rng.uniform(36, 58))
    tones = rng.normal(0, 7, size=(height // 36 + 2, width // 36 + 2)).astype(np.float32)
    joints = np.where((y % side < 2.2) | (x % side < 2.2), -42, 0).astype(np.float32)
    return (168, 172, 178), tones[(y // side).astype(int), (x // side).astype(int)] + joints + 3 * _noise(
        rng, height, width, 6, 6)


def _bricks(rng: np.random.Generator, height: int, width: int) -> Field:
    y, x = _axes(height, width)
    tall = float(rng.uniform(18, 26))
    row = (y // tall).astype(int)
    along = x + (row % 2) * tall * 1.1
    column = (along // (tall * 2.2)).astype(int)
    tones = rng.normal(0, 9, size=(height // 18 + 2, width // 36 + 4)).astype(np.float32)
    mortar = np.where((y % tall < 2) | (along % (tall * 2.2) < 2), 44, 0).astype(np.float32)
    return (134, 96, 84), tones[row, column] + mortar + 4 * _noise(rng, height, width, 3, 3)


def _sky(rng: np.random.Generator, height: int, width: int) -> Field:
    y, _ = _axes(height, width)
    clouds = np.maximum(_noise(rng, height, width, 40, 70) + 0.4 * _noise(rng, height, width, 14, 24), 0)
    return (138, 158, 182), 44 * (y / height - 0.5) + 20 * clouds


def _paper(rng: np.random.Generator, height: int, width: int) -> Field:
    y, _ = _axes(height, width)
    lines = np.where(y % float(rng.uniform(16, 26)) < 1.6, -46, 0).astype(np.float32)
    return (222, 219, 208), lines + 3 * _noise(rng, height, width, 8, 8)


def _fabric(rng: np.random.Generator, height: int, width: int) -> Field:
    y, x = _axes(height, width)
    thread = float(rng.uniform(5, 9))
    weave = 9 * np.sin(2 * np.pi * (x + y) / thread) * np.sin(2 * np.pi * (x - y) / thread)
    return (84, 86, 96), weave.astype(np.float32) + 6 * _noise(rng, height, width, 16, 16)


_KINDS = {'grass': _grass, 'wood': _wood, 'tiles': _tiles, 'sand': _sand, 'bricks': _bricks, 'sky': _sky,
          'paper': _paper, 'fabric': _fabric}
