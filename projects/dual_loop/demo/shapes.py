"""Outlines of the shapes."""

from collections.abc import Sequence

import numpy as np


def _polygon(radii: Sequence[float], start: float = -np.pi / 2) -> np.ndarray:
    angles = start + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radii)[:, None]


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t)**3, -y - 2.5], 1) / 15.5


def _cross(arm: float = 0.4) -> np.ndarray:
    corner = np.array([(arm, -1), (arm, -arm), (1, -arm)])
    turns = [np.array([[0, -1], [1, 0]])] * 4
    return np.concatenate([corner @ np.linalg.matrix_power(turn.T, k) for k, turn in enumerate(turns)])


def _crescent(distance: float = 0.5, bite: float = 0.8) -> np.ndarray:
    """A unit disc without a smaller one, whose centre lies to its right."""
    across = (1 + distance**2 - bite**2) / (2 * distance)
    tip, inner_tip = (np.arctan2(np.sqrt(1 - across**2), x) for x in (across, across - distance))
    outer, inner = np.linspace(tip, 2 * np.pi - tip, 48), np.linspace(2 * np.pi - inner_tip, inner_tip, 48)[1:-1]
    bitten = np.stack([np.cos(inner), np.sin(inner)], 1) * bite + (distance, 0)
    return (np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), bitten]) + (0.12, 0)) * 1.1


# name -> closed outlines in units of the radius, y down; filled by the even-odd rule, so a second outline is a hole
SHAPES = {
    'circle': [_polygon([0.96] * 64)],
    'square': [_polygon([1.2] * 4, start=-np.pi / 4)],
    'triangle': [_polygon([1.16] * 3) + (0, 0.16)],
    'star': [_polygon([1.16, 0.52] * 5)],
    'ring': [_polygon([1.0] * 64), _polygon([0.48] * 64)],
    'cross': [_cross()],
    'heart': [_heart()],
    'crescent': [_crescent()],
    'diamond': [np.array([(0, -1.15), (0.78, 0), (0, 1.15), (-0.78, 0)])],
    'bar': [np.array([(-1.12, -0.42), (1.12, -0.42), (1.12, 0.42), (-1.12, 0.42)])],
    'arrow': [np.array([(-1.1, -0.36), (0.02, -0.36), (0.02, -0.9), (1.1, 0), (0.02, 0.9), (0.02, 0.36),
                        (-1.1, 0.36)])],
    'hourglass': [np.array([(-0.86, -1), (0.86, -1), (0.2, 0), (0.86, 1), (-0.86, 1), (-0.2, 0)])],
}
#: Radius, in the same units, of the disc that holds the whole shape.
REACH = {name: float(max(np.hypot(*outline.T).max() for outline in outlines)) for name, outlines in SHAPES.items()}
