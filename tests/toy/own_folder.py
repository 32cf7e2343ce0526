"""A folder of one's own as people have it: pictures of 48 x 64 pixels, each with a box."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

__all__ = ['own_folder']
HEIGHT, WIDTH = 48, 64
BOX = (slice(10, 30), slice(8, 40))


def mask(box=BOX, level=255, height=HEIGHT, width=WIDTH):
    values = np.zeros((height, width), np.uint8)
    values[box] = level
    return values


def draw(values):
    """A picture of a mask: red inside, blue outside."""
    return Image.fromarray(np.where(values[..., None] > 0, np.uint8([240, 10, 10]), np.uint8([10, 20, 200])))


@pytest.fixture
def own_folder(tmp_path):
    """``add(name, ...)`` writes a picture and its mask; ``root`` is the folder."""
    root = tmp_path / 'my pictures'

    def save(picture, path, **options):
        path = root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
        return path

    def add(name, box=BOX, image='.jpg', masked=True):
        values = mask(box)
        save(draw(values), f'images/{name}{image}')
        if masked:
            save(values, f'masks/{name}.png')

    return SimpleNamespace(root=root, add=add, save=save, mask=mask, draw=draw, box=BOX)
