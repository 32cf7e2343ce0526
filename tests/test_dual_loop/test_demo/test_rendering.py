"""Scenes and their pixels: masks against closed forms and against the picture itself."""

from dataclasses import replace

import numpy as np
import pytest

from dual_loop.demo.rendering import MIN_VISIBLE, draw_pair, draw_scene, render_scene
from dual_loop.demo.scene import SIZES, Scene, SceneObject, sample_scene
from dual_loop.demo.shapes import SHAPES
from dual_loop.demo.world import ACCENTS, BACKGROUNDS, COLOURS, WORLDS, A, B, stands_out, visible_accents


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
    ('ring', lambda x, y: np.minimum(30 - np.hypot(x, y), np.hypot(x, y) - 0.48 * 30)),
    ('square', lambda x, y: 1.2 * 30 / np.sqrt(2) - np.maximum(abs(x), abs(y))),
    ('cross', lambda x, y: np.minimum(30 - np.maximum(abs(x), abs(y)), 0.4 * 30 - np.minimum(abs(x), abs(y)))),
    ('crescent', lambda x, y: np.minimum(33 - np.hypot(x - 3.96, y), np.hypot(x - 20.46, y) - 26.4)),
    ('bar', lambda x, y: np.minimum(1.12 * 30 - abs(x), 0.42 * 30 - abs(y))),
    ('diamond', lambda x, y: (1 - abs(x) / 23.4 - abs(y) / 34.5) * 23.4 * 34.5 / np.hypot(23.4, 34.5)),
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


@pytest.mark.parametrize('texture, share', [('striped', 0.4), ('dotted', np.pi * 0.29**2), ('checked', 0.5),
                                            ('gridded', 1 - 0.7**2), ('zigzagged', 0.4)])
def test_textures_cover_their_share(texture, share):
    image, masks, _ = drawn(thing('circle', texture=texture, radius=50.))
    white = (image[:, :, 1] > 140) & masks[0]
    assert white.sum() / masks[0].sum() == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize('world', WORLDS.values(), ids=WORLDS)
def test_sampled_scenes_are_as_promised(world):
    for index in range(40):
        scene, image, masks, visible = draw_scene(np.random.default_rng([1, index]), world)
        assert image.shape == (scene.height, scene.width, 3) and image.dtype == np.uint8
        assert min(image.shape[:2]) >= 176 and max(image.shape[:2]) <= 216
        assert 2 <= len(scene.objects) == len(masks) <= 4 and masks.sum(0).max() <= 1
        assert len({item.look for item in scene.objects}) == len(scene.objects)
        assert np.array_equal(render_scene(scene)[2], visible) and visible.min() >= MIN_VISIBLE
        for item, mask, share in zip(scene.objects, masks, visible):
            assert item.shape in world.shapes and item.colour in world.colours and item.texture in world.textures
            assert stands_out(item.colour, scene.background)
            assert item.accent in ([None] if item.texture == 'plain' else visible_accents(item.colour))
            low, high = SIZES[item.size]
            rows, columns = np.nonzero(mask)
            extent = max(np.ptp(rows), np.ptp(columns)) + 1
            assert 0.75 * low < extent / scene.side < 1.25 * high or share < 0.95
            assert rows.min() > 0 and rows.max() < scene.height - 1
            assert columns.min() > 0 and columns.max() < scene.width - 1


def test_pictures_differ_from_scene_to_scene():
    pictures = [draw_scene(np.random.default_rng([2, index]))[1].tobytes() for index in range(20)]
    assert len(set(pictures)) == 20


def test_the_second_frame_shows_the_same_objects_moved():
    moved = 0
    for index in range(20):
        (first, image1, masks1, _), (second, image2, masks2, _) = draw_pair(np.random.default_rng([3, index]))
        assert image1.shape == image2.shape and not np.array_equal(image1, image2)
        assert [item.look for item in first.objects] == [item.look for item in second.objects]
        for item, mask1, mask2 in zip(second.objects, masks1, masks2):
            low, high = SIZES[item.size]
            assert low - 1e-9 <= 2 * item.radius / first.side <= high + 1e-9
            assert 0.45 < mask2.sum() / mask1.sum() < 2.2
            moved += not np.array_equal(mask1, mask2)
        assert render_scene(second)[2].min() >= MIN_VISIBLE
    assert moved > 40


def test_the_background_moves_with_the_camera():
    still = Scene(128, 112, 'bricks', 5, (thing('star'),))
    panned = replace(still, background_shift=(7, -4))
    image, shifted = render_scene(still)[0], render_scene(panned)[0]
    assert np.array_equal(image[90:110, 5:115], shifted[86:106, 12:122])


def plainly_covered(item, width, height, fine=5):
    """Share of each pixel inside an object, by counting edges to the right of fine x fine points."""
    steps = (np.arange(fine) + 0.5) / fine
    y = (np.arange(height)[:, None] + steps).reshape(-1, 1)
    x = (np.arange(width)[:, None] + steps).reshape(1, -1)
    dx, dy = x - item.x, y - item.y
    u = (np.cos(item.angle) * dx + np.sin(item.angle) * dy) / item.radius
    v = (np.cos(item.angle) * dy - np.sin(item.angle) * dx) / item.radius
    inside = np.zeros(u.shape, bool)
    for outline in SHAPES[item.shape]:
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0)):
            if y0 != y1:
                inside ^= ((y0 <= v) != (y1 <= v)) & (u < x0 + (v - y0) * (x1 - x0) / (y1 - y0))
    return inside.reshape(height, fine, width, fine).mean((1, 3))


@pytest.mark.parametrize('seed', range(5))
def test_masks_of_scenes_are_those_of_a_plain_rendering(seed):
    scene, _, masks, visible = draw_scene(np.random.default_rng([4, seed]), B)
    covers = [plainly_covered(item, scene.width, scene.height) for item in scene.objects]
    for k, (mask, share) in enumerate(zip(masks, visible)):
        seen = covers[k] * np.prod([1 - above for above in covers[k + 1:]], axis=0)
        decided = abs(seen - 0.5) > 0.35  # OpenCV counts what an outline touches, so objects are 0.1 pixels larger
        assert np.array_equal(mask[decided], seen[decided] > 0.5)
        assert (mask ^ (seen > 0.5)).sum() < 0.035 * mask.sum()
        assert share == pytest.approx(seen.sum() / covers[k].sum(), abs=0.01)


def lab(rgb):
    """CIELAB; of red (255, 0, 0) tables say (53.24, 80.09, 67.20)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055)**2.4 for v in np.array(rgb) / 255]
    white = 0.95047, 1.0, 1.08883
    rows = (0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)
    f = [t**(1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (np.array(rows) @ linear) / white]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_colours_are_far_apart():
    assert lab((255, 0, 0)) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    points = np.array([lab(rgb) for rgb in COLOURS.values()])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert distances[~np.eye(len(points), dtype=bool)].min() > 42
    tinted = min(np.linalg.norm(lab(np.clip(np.add(COLOURS[one], sign), 0, 255)) - lab(COLOURS[other]))
                 for one in COLOURS for other in COLOURS if one != other for sign in (-8, 8))
    assert tinted > 36


def test_objects_can_be_seen_on_their_background_and_marks_on_their_object():
    for colour, rgb in COLOURS.items():
        for background, ground in BACKGROUNDS.items():
            assert stands_out(colour, background) == (np.linalg.norm(lab(rgb) - lab(ground)) >= 20)
        accents = {name for name, mark in ACCENTS.items() if abs(lab(mark)[0] - lab(rgb)[0]) >= 36}
        assert set(visible_accents(colour)) == accents != set()
    assert not stands_out('grey', 'tiles') and visible_accents('yellow') == ['black']
    assert visible_accents('navy') == ['white']


def test_the_second_world_has_names_that_the_first_never_has():
    assert B.new == {'diamond', 'bar', 'arrow', 'hourglass', 'brown', 'grey', 'navy', 'lime', 'gridded', 'zigzagged'}
    assert not A.new and A.names | B.new == B.names and not A.names & B.new
    scenes = {world.name: [sample_scene(np.random.default_rng([6, seed]), world) for seed in range(700)]
              for world in (A, B)}
    looks = {name: [item.look for scene in each for item in scene.objects] for name, each in scenes.items()}
    assert all(B.new.isdisjoint(look) for look in looks['a'])
    assert {name for look in looks['b'] for name in look} == B.names | {'small', 'large'}
    new = np.array([not B.new.isdisjoint(look) for look in looks['b']])
    assert new.mean() == pytest.approx(0.6, abs=0.04)  # 2 000 objects
    mixed = [len({B.new.isdisjoint(item.look) for item in scene.objects}) == 2 for scene in scenes['b']]
    assert np.mean(mixed) > 0.5
