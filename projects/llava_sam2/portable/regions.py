"""Region prompts: which cells of the image-token grid a mask touches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

#: Modes of a picture with one value per pixel, which is non-zero inside.
_MASK_MODES = ('1', 'L', 'P', 'I', 'I;16', 'F')


def region_grid(masks: torch.Tensor, grid: int) -> torch.Tensor:
    """Turn masks into the cells of a grid x grid raster that they touch ("any overlap").

    A cell is on when at least one pixel of the mask lies in it, so a non-empty mask never gives an empty grid. Nearest
    or majority rules lose small objects: a 32 px square in 1024 px vanishes with probability 0.78.

    Args:
        masks: (..., H, W) bool or number; non-zero is inside. H and W need not be multiples of ``grid``.
        grid: number of cells per side, e.g. 16 for a 448 px tile.

    Returns:
        (..., grid, grid) bool.
    """
    height, width = masks.shape[-2:]
    if height == 0 or width == 0:
        raise ValueError(f'region_grid needs masks with pixels, got shape {tuple(masks.shape)}')
    # The maximum of bytes is one pass over memory; pooling floats takes twenty times as long.
    inside = (masks if masks.dtype == torch.bool else masks != 0).view(torch.uint8)
    rows = torch.stack([inside[..., start:stop, :].amax(dim=-2) for start, stop in _cells(height, grid)], dim=-2)
    return torch.stack([rows[..., start:stop].amax(dim=-1) for start, stop in _cells(width, grid)], dim=-1).bool()


def _cells(pixels: int, grid: int) -> list[tuple[int, int]]:
    """First pixel and end of every cell; where borders are not whole pixels, neighbours share the pixel between."""
    return [(cell * pixels // grid, -(-(cell + 1) * pixels // grid)) for cell in range(grid)]


def region_masks(prompts: Sequence[Any]) -> list[torch.Tensor]:
    """Masks that a user gives in any usual form.

    Args:
        prompts: each an array or tensor (R, H, W) or (H, W), non-zero inside, a picture with one channel, or the path
            of one.

    Returns:
        (R, H, W) each, of R regions.

    Raises:
        ValueError: names the place in ``prompts``, and the file.
    """
    if isinstance(prompts, (str, Path)):
        raise ValueError(f'mask_prompts is a list of masks, got one path: give [{str(prompts)!r}]')
    masks = []
    for place, prompt in enumerate(prompts):
        what = f'mask_prompts[{place}]'
        if isinstance(prompt, (str, Path)):
            what += f' ({prompt})'
            prompt = _opened(what, prompt)
        if isinstance(prompt, Image.Image):
            if prompt.mode not in _MASK_MODES:
                raise ValueError(f'{what} is a picture of mode {prompt.mode}, and which channel means inside is not '
                                 f'known: use one channel that is non-zero inside ({", ".join(_MASK_MODES)})')
            prompt = np.array(prompt)
        try:
            mask = torch.as_tensor(prompt).cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f'{what} must be an array or tensor (R, H, W) or (H, W), a picture or the path of one, '
                             f'got {type(prompt).__name__} ({error})') from error
        if mask.ndim not in (2, 3):
            raise ValueError(f'{what} must be (R, H, W) or (H, W), got {tuple(mask.shape)}')
        masks.append(mask.reshape(-1, *mask.shape[-2:]))
    return masks


def _opened(what: str, path: str | Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except FileNotFoundError as error:
        raise ValueError(f'{what}: there is no such file') from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'{what} cannot be read as a picture ({error})') from error
