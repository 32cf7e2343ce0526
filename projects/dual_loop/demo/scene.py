"""Scenes: which objects there are, what they look like and where they lie.

A scene is plain data, drawn from a random generator; ``rendering.py`` makes pixels of it, ``wording.py`` text.
"""

from dataclasses import dataclass, replace

import numpy as np

from dual_loop.demo.shapes import REACH
from dual_loop.demo.world import BACKGROUNDS, A, World, stands_out, visible_accents

# Diameter as a share of the shorter image side. The gap between the two is what makes "small" and "large" unambiguous.
# At the tiny model's 112 pixels a small object has 20 to 34 and a large one 35 to 54, of patches of 8 or 14.
SIZES = {'small': (0.22, 0.30), 'large': (0.38, 0.48)}
IMAGE_SIDES = (176, 216)  # pixels, inclusive
MAX_OBJECTS = 4
SPACING = 0.62  # least distance of two centres, as a share of the sum of the discs' radii that hold the objects
BACKGROUND_MARGIN = 24  # pixels by which a background may shift between two frames

Look = tuple[str, str, str, str]  # shape, colour, size, texture


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


def sample_scene(rng: np.random.Generator, world: World = A) -> Scene:
    """Draw a scene of 2 to 4 objects of which no two look alike.

    Args:
        rng: source of all randomness; the scene is a function of its state and the world.
        world: whose names the objects have.

    Returns:
        a scene in which every object lies inside the image and covers little of its neighbours.
    """
    while True:
        width, height = (int(v) for v in rng.integers(IMAGE_SIDES[0], IMAGE_SIDES[1] + 1, size=2))
        scene = Scene(width, height, str(rng.choice(list(BACKGROUNDS))), int(rng.integers(2**31)), ())
        for _ in range(min(MAX_OBJECTS, int(rng.integers(2, MAX_OBJECTS + 2)))):  # not all find a place
            item = _place(rng, scene, _sample_look(rng, world, scene))
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


def _sample_look(rng: np.random.Generator, world: World, scene: Scene) -> Look:
    """Draw (shape, colour, size, texture); often shares a shape or a colour with another object of the scene.

    Shared attributes make one word too few, so that expressions need their combinations.
    """
    others, has_new_name = scene.objects, rng.random() < world.new_share
    while True:
        shape, colour = str(rng.choice(world.shapes)), str(rng.choice(world.colours))
        if others and rng.random() < 0.6:
            model = others[int(rng.integers(len(others)))]
            shape, colour = (model.shape, colour) if rng.random() < 0.6 else (shape, model.colour)
        size = 'large' if rng.random() < 0.5 else 'small'
        texture = 'plain' if rng.random() < world.plain_share else str(rng.choice(world.textures[1:]))
        look = shape, colour, size, texture
        if (has_new_name == (not world.new.isdisjoint(look)) and stands_out(colour, scene.background)
                and all(other.look != look for other in others)):
            return look


def _place(rng: np.random.Generator, scene: Scene, look: Look) -> SceneObject | None:
    """Put an object of this look at a free place of the scene; None when 30 places were all taken."""
    shape, colour, size, texture = look
    accent = None if texture == 'plain' else str(rng.choice(visible_accents(colour)))
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
    """Whether the object lies inside the image and covers little of the objects that are already there."""
    inside = (item.reach + 1 <= item.x <= scene.width - item.reach - 1
              and item.reach + 1 <= item.y <= scene.height - item.reach - 1)
    return inside and all(
        np.hypot(item.x - other.x, item.y - other.y) >= SPACING * (item.reach + other.reach) for other in scene.objects)
