"""Scenes and their pixels: masks against closed forms and against the picture itself."""

from dataclasses import replace

import numpy as np
import pytest

from dual_loop.demo.rendering import MIN_VISIBLE, draw_pair, draw_scene, render_scene
from dual_loop.demo.scene import COLOURS, SHAPES, SIZES, Scene, SceneObject


def thing(shape, x=60.3, y=52.8, radius=30., texture='plain', colour='red', size='large'):
    accent = None if texture == 'plain' else 'white'
    return SceneObject(shape, colour, size, texture, accent, x, y, radius, 0., (0, 0, 0))


def drawn(*things, width=128, height=112):
    return render_scene(Scene(width, height, 'sand', 5, things))


def grid(width=128, height=112):
    y, x = np.mgrid[:height, :width] + 0.5
    return x - 60.3, y - 52.8


@pytest.mark.parametrize('shape, depth', [
    ('circle', lambda x, y: 0.96 * 30 - np.hypot(x, y)),
    ('ring', lambda x, y: np.minimum(30 - np.hypot(x, y), np.hypot(x, y) - 0.54 * 30)),
    ('square', lambda x, y: 1.2 * 30 / np.sqrt(2) - np.maximum(abs(x), abs(y))),
    ('cross', lambda x, y: np.minimum(30 - np.maximum(abs(x), abs(y)), 0.36 * 30 - np.minimum(abs(x), abs(y)))),
])
def test_masks_follow_the_geometry(shape, depth):
    _, (mask,), _ = drawn(thing(shape))
    depth = depth(*grid())  # pixels from the outline, positive inside
    decided = abs(depth) > 0.3
    assert np.array_equal(mask[decided], depth[decided] > 0)
    assert decided.mean() > 0.95


@pytest.mark.parametrize('shape', SHAPES)
def test_a_plain_object_has_its_colour_inside_its_mask_and_nowhere_else(shape):
    image, masks, visible = drawn(thing(shape, colour='blue'))
    bluish = image[:, :, 2].astype(int) - image[:, :, 0] > 70
    assert (bluish ^ masks[0]).sum() <= 0.04 * masks[0].sum()
    assert visible[0] == pytest.approx(1)


def test_the_nearer_object_hides_the_farther_one():
    far, near = thing('square', x=50., radius=24.), thing('circle', x=80., radius=24., colour='green')
    _, (whole,), _ = drawn(far)
    _, (top,), _ = drawn(near)
    _, masks, visible = drawn(far, near)
    assert np.array_equal(masks[1], top)
    assert not (masks[0] & masks[1]).any()
    assert (masks[0] ^ (whole & ~top)).sum() <= 4  # pixels that both outlines cross
    assert visible[0] == pytest.approx(masks[0].sum() / whole.sum(), abs=0.02) and visible[0] < 0.95


@pytest.mark.parametrize('texture, share', [('striped', 0.4), ('dotted', np.pi * 0.29**2), ('checked', 0.5)])
def test_textures_cover_their_share(texture, share):
    image, masks, _ = drawn(thing('circle', texture=texture, radius=50.))
    white = (image[:, :, 1] > 140) & masks[0]
    assert white.sum() / masks[0].sum() == pytest.approx(share, abs=0.06)


def test_sampled_scenes_are_as_promised():
    for index in range(40):
        scene, image, masks = draw_scene(np.random.default_rng([1, index]))
        assert image.shape == (scene.height, scene.width, 3) and image.dtype == np.uint8
        assert min(image.shape[:2]) >= 224 and max(image.shape[:2]) <= 320
        assert 2 <= len(scene.objects) == len(masks) <= 6 and masks.sum(0).max() <= 1
        assert len({item.look for item in scene.objects}) == len(scene.objects)
        assert render_scene(scene)[2].min() >= MIN_VISIBLE
        for item, mask in zip(scene.objects, masks):
            low, high = SIZES[item.size]
            rows, columns = np.nonzero(mask)
            extent = max(np.ptp(rows), np.ptp(columns)) + 1
            assert 0.75 * low < extent / scene.side < 1.25 * high
            assert rows.min() > 0 and rows.max() < scene.height - 1
            assert columns.min() > 0 and columns.max() < scene.width - 1


def test_pictures_differ_from_scene_to_scene():
    pictures = [draw_scene(np.random.default_rng([2, index]))[1].tobytes() for index in range(20)]
    assert len(set(pictures)) == 20


def test_the_second_frame_shows_the_same_objects_moved():
    moved = 0
    for index in range(20):
        (first, image1, masks1), (second, image2, masks2) = draw_pair(np.random.default_rng([3, index]))
        assert image1.shape == image2.shape and not np.array_equal(image1, image2)
        assert [item.look for item in first.objects] == [item.look for item in second.objects]
        for item, mask1, mask2 in zip(second.objects, masks1, masks2):
            low, high = SIZES[item.size]
            assert low - 1e-9 <= 2 * item.radius / first.side <= high + 1e-9
            assert 0.5 < mask2.sum() / mask1.sum() < 2
            moved += not np.array_equal(mask1, mask2)
        assert render_scene(second)[2].min() >= MIN_VISIBLE
    assert moved > 40


def test_the_background_moves_with_the_camera():
    still = Scene(128, 112, 'bricks', 5, (thing('star'),))
    panned = replace(still, background_shift=(7, -4))
    image, shifted = render_scene(still)[0], render_scene(panned)[0]
    assert np.array_equal(image[90:110, 5:115], shifted[86:106, 12:122])


def test_colours_are_far_apart():
    rgb = np.array(list(COLOURS.values()), float)
    distances = np.linalg.norm(rgb[:, None] - rgb[None], axis=2)
    assert distances[~np.eye(len(rgb), dtype=bool)].min() > 80
