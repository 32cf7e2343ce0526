import numpy as np
import pytest
from pycocotools import mask as coco

from dual_loop.datasets.masks import area_mask, decode_segmentation, mask_to_size, run_lengths
from dual_loop.datasets.quarantine import BadSample


def coverage(source, target):
    """(target, source): share of each target pixel that each source pixel covers, by the definition."""
    edges = np.arange(target + 1) * source / target
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(source)[None]
    return np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None) * target / source


@pytest.mark.parametrize('shape', [(48, 64), (37, 91), (3, 700), (64, 64), (200, 20), (1, 1)])
def test_area_mask_is_the_exact_area_average(shape):
    mask = np.random.default_rng(0).random(shape) > 0.4
    share = coverage(shape[0], 64) @ mask @ coverage(shape[1], 64).T
    np.testing.assert_array_equal(area_mask(mask, 64), share > 0.5 + 1e-6)


@pytest.mark.parametrize('shape', [(48, 64), (131, 200), (30, 41)])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_area_mask_of_an_object_anywhere_in_the_picture(shape, order):
    """Boxes at every border, corner and in the middle, some thinner than a target pixel."""
    rng = np.random.default_rng(0)
    rows, columns = coverage(shape[0], 64), coverage(shape[1], 64)
    cuts = [[(0, 5), (0, size), (size // 3, size // 2), (size - 1, size), (7, 8)] for size in shape]
    for top, bottom in cuts[0]:
        for left, right in cuts[1]:
            mask = np.zeros(shape, dtype=bool, order=order)
            mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) > 0.3
            share = rows @ mask @ columns.T
            expected = share > 0.5 + 1e-6 if (share > 0.5 + 1e-6).any() else share > 1e-9
            np.testing.assert_array_equal(area_mask(mask, 64), expected)


def test_area_mask_keeps_what_would_vanish():
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[503, 777] = True
    assert np.argwhere(area_mask(mask, 64)).tolist() == [[32, 49]]
    assert not area_mask(np.zeros((10, 10), dtype=bool), 64).any()


def test_every_way_to_store_a_mask(tiny):
    mask = tiny.masks[1]
    x, y, width, height = tiny.boxes[1]
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    code = tiny.rle(mask)
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    for segmentation in ([outline], code, dict(size=[48, 64], counts=runs)):
        decoded = decode_segmentation(segmentation, 48, 64, 'x')
        assert decoded.dtype == bool and decoded.flags.c_contiguous and decoded.flags.writeable
        np.testing.assert_array_equal(decoded, mask)


def test_overlapping_polygons_count_once():
    left, right = [2, 2, 12, 2, 12, 12, 2, 12], [8, 2, 20, 2, 20, 12, 8, 12]
    mask = decode_segmentation([left, right], 48, 64, 'x')
    assert mask.sum() == 18 * 10 and mask[2:12, 2:20].all()


@pytest.mark.parametrize('degenerate', [[], [5, 5], [2, 2, 40, 40]])
def test_a_polygon_without_inside_does_not_lose_the_object(degenerate):
    square = [8, 2, 20, 2, 20, 12, 8, 12]
    alone = decode_segmentation([square], 48, 64, 'x')
    for polygons in ([degenerate, square], [square, degenerate]):
        np.testing.assert_array_equal(decode_segmentation(polygons, 48, 64, 'x'), alone)
    with pytest.raises(BadSample, match='none of the polygons has three points'):
        decode_segmentation([degenerate], 48, 64, 'x')


def test_polygons_belong_to_an_image_of_the_stated_size(tiny):
    square = [[8, 2, 20, 2, 20, 12, 8, 12]]
    for size in ((48, 64), (48., 64.), (np.nan, np.nan), None):
        assert decode_segmentation(square, 48, 64, 'x', stated=size).sum() == 120
    for size, hint in (((64, 48), 'EXIF'), ((96, 128), r'\[48, 64\]$'), ((48.5, 64), r'\[48, 64\]$')):
        with pytest.raises(BadSample, match=f'belongs to an image.*{hint}'):
            decode_segmentation(square, 48, 64, 'x', stated=size)


def test_run_lengths_of_compressed_counts():
    rng = np.random.default_rng(1)
    for density in (0.02, 0.5, 0.98):
        mask = np.asfortranarray(rng.random((90, 70)) < density)
        counts = coco.encode(mask.astype(np.uint8))['counts']
        runs = run_lengths(counts, 'x')
        values = np.repeat(np.arange(len(runs)) % 2, runs)
        np.testing.assert_array_equal(values.reshape(70, 90).T, mask)


@pytest.mark.parametrize('segmentation, reason', [
    (None, 'neither a list'),
    ('5', 'neither a list'),
    ([[1, 2, 3, 4]], 'three points'),
    ([[1, 2, 3, 4], [1, 2, 3, 4, 5, 10**400]], 'coordinate'),
    ([[1, 2, 3, 4, 5]], 'three points'),
    ([[1, 2, 3, 4, 5, float('nan')]], 'coordinate'),
    ([[0, 0, 1e12, 0, 0, 5]], 'coordinate'),
    (dict(size=[64, 48], counts='0'), 'belongs to an image'),
    (dict(size=None, counts='0'), 'belongs to an image'),
    (dict(size=[48, 64], counts='5'), 'add up'),
    (dict(size=[48, 64], counts=[5, 10]), 'add up'),
    (dict(size=[48, 64], counts=[-5, 48 * 64 + 5]), 'whole numbers'),
    (dict(size=[48, 64], counts=[1.5, 48 * 64 - 1.5]), 'whole numbers'),
    (dict(size=[48, 64], counts=''), 'not a COCO'),
    (dict(size=[48, 64], counts='\x00\xff'), 'not a COCO'),
    (dict(size=[48, 64], counts='o' * 40), 'not a COCO'),
    (dict(size=[48, 64], counts='o' * 40 + '0'), 'not a COCO'),
    (dict(size=[48, 64], counts=7), 'of type int'),
    (dict(size=[48, 64], counts='\ud800'), 'not a COCO'),
])
def test_malformed_segmentations_are_bad_samples(segmentation, reason):
    with pytest.raises(BadSample, match=reason):
        decode_segmentation(segmentation, 48, 64, 'x')


def test_no_polygons_is_an_empty_mask():
    assert not decode_segmentation([], 48, 64, 'x').any()


def test_mask_of_another_resolution(tiny):
    mask = tiny.masks[2]
    np.testing.assert_array_equal(mask_to_size(np.kron(mask, np.ones((3, 3), dtype=bool)), 48, 64, 'x'), mask)
    grown = mask_to_size(mask[::2, ::2], 48, 64, 'x')
    assert (grown & mask).sum() / (grown | mask).sum() > 0.9
    with pytest.raises(BadSample, match='a mask of 48 x 64 pixels does not fit its image of 64 x 48'):  # width x height
        mask_to_size(mask.T, 48, 64, 'x')


@pytest.mark.parametrize('shape, size', [((480, 640), (48, 64)), ((48, 64), (64, 85)), ((60, 80), (59, 80))])
def test_thin_masks_of_another_resolution_keep_what_they_touch(shape, size):
    """A line and a single pixel, anywhere: never lost, and never further off than the pixel that they touch."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        row, column = (int(rng.integers(side)) for side in shape)
        for thin in ((row, column), (row, slice(None)), (slice(None), column)):
            mask = np.zeros(shape, dtype=bool)
            mask[thin] = True
            kept = mask_to_size(mask, *size, 'x')
            share = coverage(shape[0], size[0]) @ mask @ coverage(shape[1], size[1]).T
            assert kept.shape == size and kept.any() and not (kept & (share < 1e-9)).any()


def test_a_mask_is_made_smaller_by_area():
    mask = np.random.default_rng(0).random((90, 120)) > 0.4
    share = coverage(90, 40) @ mask @ coverage(120, 53).T
    np.testing.assert_array_equal(mask_to_size(mask, 40, 53, 'x'), share > 0.5 + 1e-6)


def test_a_mask_that_fits_better_on_its_side_is_that_of_the_stored_picture():
    mask = np.zeros((102, 100), dtype=bool)
    mask[5:60, 5:60] = True
    for size in ((204, 200), (200, 200), (205, 200)):
        assert mask_to_size(mask, *size, 'x').shape == size
    with pytest.raises(BadSample, match='does not fit'):
        mask_to_size(mask, 200, 204, 'x')
