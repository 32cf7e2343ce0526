"""The region rule against a plain loop over pixels."""

import math

import pytest
import torch

from llava_sam2.portable.regions import region_grid


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
