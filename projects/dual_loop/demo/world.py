"""Which names a world has: what its objects can be called, and how each of these looks."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

#: Name -> RGB; far apart from each other and from the backgrounds (``stands_out``).
COLOURS = {
    'red': (214, 36, 42), 'orange': (247, 136, 16), 'yellow': (246, 222, 38), 'green': (32, 158, 58),
    'cyan': (46, 212, 222), 'blue': (24, 84, 224), 'purple': (156, 40, 164), 'pink': (250, 140, 200),
    'brown': (112, 62, 22), 'grey': (136, 136, 136), 'navy': (16, 22, 84), 'lime': (164, 244, 60),
}
ACCENTS = {'white': (250, 250, 250), 'black': (18, 18, 18)}  # colours of a texture's marks
BACKGROUNDS = {  # name -> RGB before its noise
    'grass': (104, 118, 78), 'wood': (146, 116, 88), 'tiles': (168, 172, 178), 'sand': (196, 180, 146),
    'bricks': (134, 96, 84), 'sky': (138, 158, 182), 'paper': (222, 219, 208), 'fabric': (84, 86, 96),
}
MIN_CONTRAST = 20  # CIELAB distance of an object's colour from its background's
MIN_ACCENT_CONTRAST = 36  # difference in CIELAB lightness of a texture's marks from their object
NAMED = ('shape', 'colour', 'size', 'texture')  # an object's attributes; no two objects of a scene share all four


@dataclass(frozen=True)
class World:
    """The names of the objects of some scenes.

    Attributes:
        name: of the world.
        shapes, colours, textures: names that occur; sizes are the same everywhere.
        base: the world that was there before, whose names are the old ones.
        new_share: share of objects with at least one name that ``base`` does not have.
        plain_share: chance of a draw of no texture.
    """

    name: str
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    textures: tuple[str, ...]
    base: 'World | None' = None
    new_share: float = 0.0
    plain_share: float = 0.3

    @cached_property
    def names(self) -> frozenset[str]:
        """All names of shapes, colours and textures."""
        return frozenset((*self.shapes, *self.colours, *self.textures))

    @cached_property
    def new(self) -> frozenset[str]:
        """Those that ``base`` does not have; none without it."""
        return self.names - self.base.names if self.base else frozenset()


A = World('a', ('circle', 'square', 'triangle', 'star', 'ring', 'cross', 'heart', 'crescent'),
          ('red', 'orange', 'yellow', 'green', 'cyan', 'blue', 'purple', 'pink'),
          ('plain', 'striped', 'dotted', 'checked'))
B = World('b', (*A.shapes, 'diamond', 'bar', 'arrow', 'hourglass'), (*A.colours, 'brown', 'grey', 'navy', 'lime'),
          (*A.textures, 'gridded', 'zigzagged'), base=A, new_share=0.6)
WORLDS = {world.name: world for world in (A, B)}
#: Names that only later worlds have: a model of world A has never met them.
NEW_NAMES = frozenset().union(*(world.new for world in WORLDS.values()))


def stands_out(colour: str, background: str) -> bool:
    """Whether an object of this colour can be seen on this background."""
    return _distance(COLOURS[colour], BACKGROUNDS[background]) >= MIN_CONTRAST


def visible_accents(colour: str) -> list[str]:
    """Accents whose marks can be seen on this colour."""
    lightness = _lab(COLOURS[colour])[0]
    return [name for name, rgb in ACCENTS.items() if abs(_lab(rgb)[0] - lightness) >= MIN_ACCENT_CONTRAST]


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    return float(np.hypot.reduce(np.subtract(_lab(one), _lab(other))))


@lru_cache
def _lab(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """CIELAB of an sRGB colour, 0..255 each, white being daylight."""
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055)**2.4)
    x, y, z = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                        [0.0193339, 0.1191920, 0.9503041]]) @ linear / (0.95047, 1, 1.08883)
    fx, fy, fz = (float(v**(1 / 3) if v > (6 / 29)**3 else v / (3 * (6 / 29)**2) + 4 / 29) for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
