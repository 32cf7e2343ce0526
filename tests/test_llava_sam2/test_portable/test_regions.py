"""The region rule against a plain loop over pixels."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from llava_sam2.portable.regions import region_grid, region_masks


def touched_cells(mask: torch.Tensor, grid: int) -> torch.Tensor:
    """A cell covers the half-open interval [i H / grid, (i + 1) H / grid); a pixel touches every cell it overlaps."""
    height, width = mask.shape
    cells = torch.zeros(grid, grid, dtype=torch.bool)
    for y, x in mask.nonzero().tolist():
        for row in range(math.floor(y * grid / height), math.ceil((y + 1) * grid / height)):
            for column in range(math.floor(x * grid / width), math.ceil((x + 1) * grid / width)):
                cells[row, column] = True
    return cells


@pytest.mark.parametrize('size', [(16, 16), (17, 23), (5, 30), (3, 3), (31, 7)])
@pytest.mark.parametrize('density', [0.01, 0.2])
def test_any_overlap(size, density):
    masks = torch.rand(6, *size, generator=torch.Generator().manual_seed(1)) < density
    grids = region_grid(masks, 4)
    assert grids.dtype == torch.bool
    for mask, cells in zip(masks, grids):
        assert torch.equal(cells, touched_cells(mask, 4))


def test_a_single_pixel_anywhere_is_never_lost_and_nothing_stays_nothing():
    masks = torch.eye(19 * 13, dtype=torch.uint8).view(19, 13, 19, 13)
    grids = region_grid(masks, 4)
    assert grids.shape == (19, 13, 4, 4)
    assert grids.flatten(2).any(dim=2).all()
    assert not region_grid(torch.zeros(2, 19, 13), 4).any()


@pytest.mark.parametrize('value', [0.25, -1.0, 256, True])
def test_any_number_but_zero_is_inside_in_any_memory_order(value):
    masks = torch.zeros(2, 3, 23, 17, dtype=torch.tensor(value).dtype).transpose(-1, -2)
    masks[1, 2, 16, 5] = value
    assert region_grid(masks, 4).nonzero().tolist() == [[1, 2, 3, 0], [1, 2, 3, 1]]


def test_mask_without_pixels_is_refused():
    with pytest.raises(ValueError, match='masks with pixels'):
        region_grid(torch.zeros(1, 0, 5), 4)


# -- masks as users give them -----------------------------------------------------------------------------------------


def test_arrays_pictures_and_paths_are_the_same_masks(tmp_path):
    mask = np.zeros((12, 24), dtype=np.uint8)
    mask[7:9, 13:15] = 1
    picture = Image.fromarray(mask * 255)
    (palette := Image.fromarray(mask, 'P')).putpalette([9, 0, 0, 9, 0, 0])  # both of one colour: the index counts
    deep = Image.fromarray(mask.astype(np.uint16) * 256)
    for name, each in (('grey.png', picture), ('palette.png', palette), ('one.png', picture.convert('1')),
                       ('deep.png', deep), ('float.tif', picture.convert('F'))):
        each.save(tmp_path / name)
    paths = [tmp_path / 'grey.png', str(tmp_path / 'palette.png'), tmp_path / 'one.png', tmp_path / 'deep.png',
             tmp_path / 'float.tif']
    given = [mask, mask[None], torch.from_numpy(mask).bool(), mask.tolist(), picture, palette, deep, *paths]
    found = region_masks(given)
    assert len(found) == len(given)
    for each in found:
        assert each.shape == (1, 12, 24) and torch.equal(each[0] != 0, torch.from_numpy(mask) != 0)
    (several, ) = region_masks([np.stack([mask, 1 - mask])])
    assert several.shape == (2, 12, 24)


@pytest.mark.parametrize('given, message', [
    ('mask.png', r"is a list of masks, got one path: give \['mask.png'\]"),
    (['no/mask.png'], r'mask_prompts\[0\] \(no/mask.png\): there is no such file'),
    ([np.ones((4, 4)), __file__], r'mask_prompts\[1\] \(.*test_regions.py\) cannot be read as a picture'),
    ([Image.new('RGBA', (4, 4))], r'mask_prompts\[0\] is a picture of mode RGBA, and which channel means inside'),
    ([Image.new('LA', (4, 4))], 'mode LA'),
    ([Image.new('RGB', (4, 4))], 'mode RGB'),
    ([np.ones(4)], r'mask_prompts\[0\] must be \(R, H, W\) or \(H, W\), got \(4,\)'),
    ([dict(counts='a')], r'mask_prompts\[0\] must be an array or tensor .* got dict'),
    ([None], r'mask_prompts\[0\] must be an array or tensor .* got NoneType'),
    ([[[1, 2], [3]]], r'mask_prompts\[0\] must be an array or tensor .* got list'),
])
def test_what_is_no_mask_is_refused_by_place(given, message):
    with pytest.raises(ValueError, match=message):
        region_masks(given)


def test_a_cut_off_file_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'mask.png')
    content = (tmp_path / 'mask.png').read_bytes()
    (tmp_path / 'mask.png').write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f'{tmp_path}/mask.png.* cannot be read as a picture'):
        region_masks([tmp_path / 'mask.png'])
