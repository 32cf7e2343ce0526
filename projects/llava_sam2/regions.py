"""Region prompts: which cells of the image-token grid a mask touches."""

import torch
import torch.nn.functional as F


def region_grid(masks: torch.Tensor, grid: int) -> torch.Tensor:
    """Turn masks into the cells of a grid x grid raster that they touch ("any overlap").

    A cell is on when at least one pixel of the mask lies in it, so a non-empty mask never gives an empty grid. Nearest
    or majority rules lose small objects: a 32 px square in 1024 px vanishes with probability 0.78
    (reference/predecessor.md, D34).

    Args:
        masks: (..., H, W) bool or number; non-zero is inside. H and W need not be multiples of ``grid``.
        grid: number of cells per side, e.g. 16 for a 448 px tile.

    Returns:
        (..., grid, grid) bool.
    """
    *lead, height, width = masks.shape
    if height == 0 or width == 0:
        raise ValueError(f'region_grid needs masks with pixels, got shape {tuple(masks.shape)}')
    inside = (masks != 0).reshape(-1, 1, height, width).float()
    # Adaptive max pooling covers every pixel also when the cell borders are not whole pixels.
    return (F.adaptive_max_pool2d(inside, grid) > 0).reshape(*lead, grid, grid)
