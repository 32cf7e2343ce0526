"""Clicks mean what ``dual-loop describe`` makes of the same point or box."""

import cv2
import numpy as np
import pytest
import torch

from dual_loop.demo_page.canvas import Canvas
from dual_loop.evaluation.photograph import Photograph
from dual_loop.evaluation.prompted import boxed_region, pointed_region
from dual_loop.visualization.palette import PROMPT_COLOUR


@pytest.fixture
def canvas(questions) -> Canvas:
    return canvas_of(questions, 60, 90)


def canvas_of(questions, height, width) -> Canvas:
    image = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Canvas(Photograph('noise', image, questions.loaded))


def test_a_point_and_a_box_are_those_of_the_command(canvas):
    network, picture = canvas.photograph.loaded.network, canvas.photograph.picture
    assert canvas.shown().size == (360, 240), 'enlarged four times'
    point = canvas.clicked(203, 120)
    expected = pointed_region(network, picture, (50, 30))
    assert (point.region.prompt, point.region.rule) == (expected.prompt, expected.rule)
    assert torch.equal(point.region.mask, expected.mask)
    assert torch.equal(point.clicked(0, 0).region.mask, pointed_region(network, picture, (0, 0)).mask), 'begins anew'
    corner = canvas.cleared('box').clicked(323, 100)
    assert corner.region is None
    box = corner.clicked(40, 239)  # pixels 80,25 and 10,59: both belong to it
    assert torch.equal(box.region.mask, boxed_region(network, picture, (10, 25, 71, 35)).mask)
    assert box.clicked(0, 0).region is None
    assert corner.clicked(323, 100).region.mask.sum() == 1, 'twice the same pixel'


def test_an_outline_is_its_polygon(canvas):
    places = [(20, 10), (70, 12), (60, 50), (25, 45)]
    drawn = canvas.cleared('outline')
    for x, y in places:
        drawn = drawn.clicked(4 * x, 4 * y)
    expected = cv2.drawContours(np.zeros((60, 90), np.uint8), [np.array(places)], -1, 1, cv2.FILLED)
    assert (drawn.region.mask.numpy() == expected.astype(bool)).all() and drawn.region.rule == 'the outline itself'
    assert drawn.cleared().region is None and drawn.cleared().kind == 'outline' and len(drawn.clicks) == 4


@pytest.mark.parametrize(('size', 'shown'), [((1, 1), (400, 400)), ((3, 3000), (1600, 2)),
                                             ((2000, 3200), (1600, 1000))])
def test_clicks_at_the_ends_of_a_picture_of_any_size(questions, size, shown):
    canvas = canvas_of(questions, *size)
    assert canvas.shown().size == shown
    box = canvas.cleared('box').clicked(0, 0).clicked(shown[0] - 1, shown[1] - 1)
    assert box.region.mask.float().mean() > 0.99, 'all of it'
    with pytest.raises(ValueError, match='outside of the picture'):
        canvas.clicked(shown[0], 0)


def test_what_is_shown(canvas):
    """Clicks and the region's line are drawn on a copy; the region itself keeps its pixels."""
    plain = np.asarray(canvas.shown())
    box = canvas.cleared('box').clicked(40, 40).clicked(199, 159)
    drawn, inside = np.asarray(box.shown()), box.region.mask.numpy().repeat(4, 0).repeat(4, 1)
    assert (drawn == PROMPT_COLOUR).all(2)[~inside].any()
    changed = (drawn != plain).any(2) & inside
    rows, columns = changed.nonzero()
    assert ((np.hypot(rows - 40, columns - 40) < 9) | (np.hypot(rows - 159, columns - 199) < 9)).all(), 'but at clicks'
    assert (np.asarray(box.shown(marked=False)) == plain).all()
