"""Pixels of a scene: the picture and one mask of visible pixels per object."""

from typing import NamedTuple

import cv2
import numpy as np

from dual_loop.demo.backgrounds import background_field
from dual_loop.demo.scene import BACKGROUND_MARGIN, Scene, SceneObject, move_scene, sample_scene
from dual_loop.demo.shapes import SHAPES
from dual_loop.demo.world import ACCENTS, COLOURS, A, World

SUPERSAMPLING = 4  # outlines are filled on a grid this much finer and averaged
SHIFT = 4  # fractional bits of OpenCV's polygon coordinates
MIN_VISIBLE = 0.65  # least share of an object that the objects in front of it leave visible
# Period of a texture's marks in radii: few and wide, so that they can be told apart in an object of 25 pixels.
MARK_PERIODS = {'striped': 0.62, 'dotted': 0.56, 'checked': 0.8, 'gridded': 0.6, 'zigzagged': 0.75}


class Drawn(NamedTuple):
    """A scene and its pixels.

    Attributes:
        scene: what is shown.
        image: uint8 (H, W, 3) RGB.
        masks: bool (K, H, W), where object k is seen.
        visible: float (K,), share of each object's area that no other object covers.
    """

    scene: Scene
    image: np.ndarray
    masks: np.ndarray
    visible: np.ndarray


def render_scene(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a scene from back to front with anti-aliased edges.

    Args:
        scene: what to paint.

    Returns:
        image uint8 (H, W, 3) RGB; masks bool (K, H, W), true where at least half of the pixel shows object k;
        visible float (K,), the share of each object's area that no other object covers.
    """
    margin, (shift_x, shift_y) = BACKGROUND_MARGIN, scene.background_shift
    size = scene.height + 2 * margin, scene.width + 2 * margin
    field = background_field(scene.background, scene.background_seed, *size)
    top, left = margin - shift_y, margin - shift_x
    canvas = field[top:top + scene.height, left:left + scene.width].copy()
    covers = np.zeros((len(scene.objects), scene.height, scene.width), np.float32)
    areas = []
    for k, item in enumerate(scene.objects):
        window, cover, paint = _paint(item, scene.height, scene.width)
        canvas[window] += (paint - canvas[window]) * cover[:, :, None]
        covers[:k, window[0], window[1]] *= 1 - cover
        covers[k][window] = cover
        areas.append(cover.sum())
    image = cv2.convertScaleAbs(np.maximum(canvas, 0), alpha=scene.brightness)  # rounds and saturates at 255
    return image, covers >= 0.5, covers.sum((1, 2)) / np.array(areas)


def draw_scene(rng: np.random.Generator, world: World = A) -> Drawn:
    """Sample and render a scene in which at least ``MIN_VISIBLE`` of every object shows."""
    while True:
        scene = sample_scene(rng, world)
        drawn = Drawn(scene, *render_scene(scene))
        if drawn.visible.min() >= MIN_VISIBLE:
            return drawn


def draw_pair(rng: np.random.Generator, world: World = A) -> tuple[Drawn, Drawn]:
    """Sample and render two frames of one scene, as in ``draw_scene``; object k is the same object in both."""
    first = draw_scene(rng, world)
    while True:
        scene = move_scene(rng, first.scene)
        second = Drawn(scene, *render_scene(scene))
        if second.visible.min() >= MIN_VISIBLE:
            return first, second


def _paint(item: SceneObject, height: int, width: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Window (two slices), coverage float32 (h, w) in 0..1 and RGB float32 (h, w, 3) of one object."""
    reach = item.reach + 1
    x0, y0 = max(int(item.x - reach), 0), max(int(item.y - reach), 0)
    x1, y1 = min(int(item.x + reach) + 2, width), min(int(item.y + reach) + 2, height)
    cos, sin = np.cos(item.angle), np.sin(item.angle)
    turn = np.array([[cos, -sin], [sin, cos]]) * item.radius
    # OpenCV's coordinate i is the centre of a pixel that covers [i, i + 1) of ours, hence the half.
    outlines = [(outline @ turn.T + (item.x - x0, item.y - y0)) * SUPERSAMPLING - 0.5 for outline in SHAPES[item.shape]]
    outlines = [np.round(outline * 2**SHIFT).astype(np.int32) for outline in outlines]
    fine = np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(fine, outlines, 255, shift=SHIFT)
    cover = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA).astype(np.float32) / 255

    dx = np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5 - np.float32(item.x)
    dy = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5 - np.float32(item.y)
    shade = 1 - 0.08 * (dx + dy) / np.float32(item.radius)  # light from the top left
    paint = (np.array(COLOURS[item.colour], np.float32) + np.array(item.tint, np.float32)) * shade[:, :, None]
    if item.texture != 'plain':
        marks = _marks(item.texture, cos * dx + sin * dy, cos * dy - sin * dx, item.radius)[:, :, None]
        paint += (np.array(ACCENTS[item.accent], np.float32) - paint) * marks
    return (slice(y0, y1), slice(x0, x1)), cover, paint


def _marks(texture: str, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Share (h, w) of each pixel that the texture's marks cover; u, v are pixel offsets in the object's own axes."""
    period = MARK_PERIODS[texture] * radius
    if texture == 'striped':
        slanted = (u + v) * np.float32(np.sqrt(0.5))
        return _band(slanted, period, 0.4)
    if texture == 'zigzagged':
        return _band(v - np.abs(_wave(u, period)) * 1.6, period, 0.4)
    if texture == 'gridded':
        return np.maximum(_band(u, period, 0.3), _band(v, period, 0.3))
    if texture == 'dotted':
        return np.clip(period * 0.29 - np.hypot(_wave(u, period), _wave(v, period)) + 0.5, 0, 1)
    across, along = (np.clip(2 * (np.abs(_wave(w, period)) - period / 4), -1, 1) for w in (u, v))
    return 0.5 + 0.5 * across * along


def _band(offset: np.ndarray, period: float, share: float) -> np.ndarray:
    """Share of each pixel inside bands that take up ``share`` of every period."""
    return np.clip(period * share / 2 - np.abs(_wave(offset, period)) + 0.5, 0, 1)


def _wave(offset: np.ndarray, period: float) -> np.ndarray:
    """Distance in pixels, signed, to the nearest multiple of ``period``."""
    return (offset / period - np.round(offset / period)) * period
