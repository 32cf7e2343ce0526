"""A closed world of simple scenes: which objects there are, what they look like and where they lie.

A scene is plain data, drawn from a random generator; ``rendering.py`` makes pixels of it, ``wording.py`` text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

COLOURS = {  # name -> RGB; far apart from each other and more saturated than any background
    'red': (214, 36, 42), 'orange': (247, 136, 16), 'yellow': (246, 222, 38), 'green': (32, 158, 58),
    'cyan': (46, 212, 222), 'blue': (36, 72, 214), 'purple': (128, 44, 176), 'pink': (250, 128, 192),
}
ACCENTS = {'white': (250, 250, 250), 'black': (18, 18, 18)}  # colours of stripes, dots and checks
TEXTURES = ('plain', 'striped', 'dotted', 'checked')
BACKGROUNDS = ('grass', 'wood', 'tiles', 'sand', 'bricks', 'sky', 'paper', 'fabric')
# Diameter as a share of the shorter image side. The gap between the two is what makes "small" and "large" unambiguous.
SIZES = {'small': (0.13, 0.17), 'large': (0.26, 0.32)}
IMAGE_SIDES = (224, 320)  # pixels, inclusive
MAX_OBJECTS = 6
BACKGROUND_MARGIN = 24  # pixels by which a background may shift between two frames

Look = tuple[str, str, str, str, str | None]  # shape, colour, size, texture, accent


def _polygon(radii: Sequence[float], start: float = -np.pi / 2) -> np.ndarray:
    angles = start + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radii)[:, None]


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t)**3, -y - 2.5], 1) / 15.5


def _cross(arm: float = 0.36) -> np.ndarray:
    corner = np.array([(arm, -1), (arm, -arm), (1, -arm)])
    turns = [np.array([[0, -1], [1, 0]])] * 4
    return np.concatenate([corner @ np.linalg.matrix_power(turn.T, k) for k, turn in enumerate(turns)])


# name -> closed outlines in units of the radius, y down; filled by the even-odd rule, so a second outline is a hole
SHAPES = {
    'circle': [_polygon([0.96] * 64)],
    'square': [_polygon([1.2] * 4, start=-np.pi / 4)],
    'triangle': [_polygon([1.16] * 3) + (0, 0.16)],
    'star': [_polygon([1.16, 0.52] * 5)],
    'ring': [_polygon([1.0] * 64), _polygon([0.54] * 64)],
    'cross': [_cross()],
    'heart': [_heart()],
}
REACH = {name: float(max(np.hypot(*outline.T).max() for outline in outlines)) for name, outlines in SHAPES.items()}


@dataclass(frozen=True)
class SceneObject:
    """One object; positions and lengths in pixels, angles in radians, ``tint`` an RGB offset in grey levels."""

    shape: str
    colour: str
    size: str
    texture: str
    accent: str | None  # colour of the texture's marks; None for a plain object
    x: float
    y: float
    radius: float
    angle: float
    tint: tuple[int, int, int]

    @property
    def look(self) -> tuple[str, str, str, str]:
        """(shape, colour, size, texture): no two objects of a scene share all four."""
        return self.shape, self.colour, self.size, self.texture

    @property
    def reach(self) -> float:
        """Radius in pixels of the disc that holds the whole object."""
        return self.radius * REACH[self.shape]


@dataclass(frozen=True)
class Scene:
    """Objects from back to front on a named background; ``background_seed`` fixes the background's details."""

    width: int
    height: int
    background: str
    background_seed: int
    objects: tuple[SceneObject, ...]
    background_shift: tuple[int, int] = (0, 0)
    brightness: float = 1.0

    @property
    def side(self) -> int:
        """The shorter image side in pixels, the unit of sizes and distances."""
        return min(self.width, self.height)


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of 2 to 6 objects of which no two look alike.

    Args:
        rng: source of all randomness; the scene is a function of its state.

    Returns:
        a scene in which every object lies inside the image and overlaps its neighbours little.
    """
    while True:
        width, height = (int(v) for v in rng.integers(IMAGE_SIDES[0], IMAGE_SIDES[1] + 1, size=2))
        scene = Scene(width, height, str(rng.choice(BACKGROUNDS)), int(rng.integers(2**31)), ())
        for _ in range(int(rng.integers(2, MAX_OBJECTS + 1))):
            item = _place(rng, scene, _sample_look(rng, scene.objects))
            if item is not None:
                scene = replace(scene, objects=scene.objects + (item,))
        if len(scene.objects) >= 2:
            return scene


def move_scene(rng: np.random.Generator, scene: Scene) -> Scene:
    """The same objects a moment later: each moved, scaled and turned a little, with a small camera shift.

    Sizes stay inside their named range; object k of the result is object k of ``scene``.

    Args:
        rng: source of all randomness.
        scene: the first frame.

    Returns:
        the second frame, of the same width and height.
    """
    while True:
        pan = rng.uniform(-0.06, 0.06, size=2) * scene.side
        moved = replace(scene, objects=(), brightness=float(rng.uniform(0.93, 1.07)),
                        background_shift=(int(np.round(pan)[0]), int(np.round(pan)[1])))
        for item in scene.objects:
            low, high = (share * scene.side / 2 for share in SIZES[item.size])
            for _ in range(12):
                dx, dy = rng.normal(0, 0.05, size=2) * scene.side + pan
                candidate = replace(item, x=item.x + float(dx), y=item.y + float(dy),
                                    radius=float(np.clip(item.radius * rng.uniform(0.9, 1.1), low, high)),
                                    angle=item.angle + float(rng.uniform(-0.15, 0.15)))
                if _fits(candidate, moved):
                    moved = replace(moved, objects=moved.objects + (candidate,))
                    break
        if len(moved.objects) == len(scene.objects):
            return moved


def _sample_look(rng: np.random.Generator, others: Sequence[SceneObject]) -> Look:
    """Draw (shape, colour, size, texture, accent); often shares a shape or a colour with another object.

    Shared attributes make one word too few, so that expressions need their combinations.
    """
    while True:
        shape, colour = str(rng.choice(list(SHAPES))), str(rng.choice(list(COLOURS)))
        if others and rng.random() < 0.6:
            model = others[int(rng.integers(len(others)))]
            shape, colour = (model.shape, colour) if rng.random() < 0.6 else (shape, model.colour)
        size = 'large' if rng.random() < 0.6 else 'small'
        texture = str(rng.choice(TEXTURES, p=(0.46, 0.18, 0.18, 0.18)))
        accent = None if texture == 'plain' else str(rng.choice(list(ACCENTS)))
        if all(other.look != (shape, colour, size, texture) for other in others):
            return shape, colour, size, texture, accent


def _place(rng: np.random.Generator, scene: Scene, look: Look) -> SceneObject | None:
    """Put an object of this look at a free place of the scene; None when 30 places were all taken."""
    shape, colour, size, texture, accent = look
    radius = float(rng.uniform(*SIZES[size])) * scene.side / 2
    angle = 0.0 if shape in ('circle', 'ring') and texture == 'plain' else float(rng.uniform(-0.2, 0.2))
    red, green, blue = (int(v) for v in rng.integers(-8, 9, size=3))
    for _ in range(30):
        x, y = (float(v) for v in rng.uniform(0, (scene.width, scene.height)))
        item = SceneObject(shape, colour, size, texture, accent, x, y, radius, angle, (red, green, blue))
        if _fits(item, scene):
            return item
    return None


def _fits(item: SceneObject, scene: Scene) -> bool:
    """Whether the object lies inside the image and at most touches the objects that are already there."""
    inside = (item.reach + 1 <= item.x <= scene.width - item.reach - 1
              and item.reach + 1 <= item.y <= scene.height - item.reach - 1)
    return inside and all(
        np.hypot(item.x - other.x, item.y - other.y) >= 0.88 * (item.reach + other.reach) for other in scene.objects)
