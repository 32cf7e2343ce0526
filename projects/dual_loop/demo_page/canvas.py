"""A picture on the page, what the user clicked in it, and the region that this means."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from dual_loop.evaluation.photograph import Photograph
from dual_loop.evaluation.prompted import Region, boxed_region, pointed_region
from dual_loop.visualization.outline import outlined
from dual_loop.visualization.palette import PROMPT_COLOUR

#: How many clicks make a region; of an outline at least.
CLICKS = dict(point=1, box=2, outline=3)
Click = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture on the page. Every user has canvases of their own, which never change.

    Attributes:
        photograph: the picture and the model.
        objects: (K, H, W) bool of an example; None of a picture of the user's.
        kind: of ``CLICKS``, what the next click means.
        clicks: (x, y) in pixels of the photograph.
        region: that they mean, or None while there are too few.
    """

    photograph: Photograph
    objects: torch.Tensor | None = None
    kind: str = 'point'
    clicks: tuple[Click, ...] = ()
    region: Region | None = None

    def clicked(self, x: float, y: float) -> 'Canvas':
        """With one more click, in pixels of the picture as ``shown``; after a whole point or box a new one begins.

        Raises:
            ValueError: it lies outside of the picture.
        """
        height, width = self.photograph.picture.size
        shown = self.shown(marked=False)
        place = (x + 0.5) * width / shown.width, (y + 0.5) * height / shown.height
        if not (0 <= place[0] < width and 0 <= place[1] < height):
            raise ValueError('That click lies outside of the picture: click an object in it.')
        whole = self.kind != 'outline' and len(self.clicks) >= CLICKS[self.kind]
        clicks = (*(() if whole else self.clicks), place)
        return replace(self, clicks=clicks, region=region_of(self.photograph, self.kind, clicks))

    def cleared(self, kind: str | None = None) -> 'Canvas':
        """Without clicks and region, and with another kind."""
        return replace(self, kind=kind or self.kind, clicks=(), region=None)

    def shown(self, marked: bool = True) -> Image.Image:
        """The picture at the size in which the page shows it, with the region's outline and the clicks."""
        region = [(self.region.mask, PROMPT_COLOUR)] if marked and self.region else []
        picture = outlined(self.photograph.image, region)[1]
        if marked:
            _draw_clicks(picture, self.clicks, self.photograph.picture.size)
        return picture


def region_of(photograph: Photograph, kind: str, clicks: Sequence[Click]) -> Region | None:
    """The region that clicks (x, y) in pixels of the photograph mean; None while there are too few.

    A point and a box mean what they mean to ``dual-loop describe``; the box has both clicks inside. An outline is the
    polygon itself.
    """
    if len(clicks) < CLICKS[kind]:
        return None
    network, picture = photograph.loaded.network, photograph.picture
    if kind == 'point':
        return pointed_region(network, picture, tuple(map(int, clicks[0])))
    corners = np.array(clicks).astype(int)
    if kind == 'box':
        low, high = corners.min(0), corners.max(0) + 1
        return boxed_region(network, picture, (*low.tolist(), *(high - low).tolist()))
    mask = np.zeros(picture.size, np.uint8)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
    return Region(torch.from_numpy(mask).bool(), f'outline of {len(clicks)} points', 'the outline itself')


def _draw_clicks(picture: Image.Image, clicks: Sequence[Click], size: tuple[int, int]) -> None:
    (height, width), radius = size, max(4, max(picture.size) // 120)
    places = [(x * picture.width / width, y * picture.height / height) for x, y in clicks]
    draw = ImageDraw.Draw(picture)
    for x, y in places:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), PROMPT_COLOUR, 'white', max(2, radius // 3))
