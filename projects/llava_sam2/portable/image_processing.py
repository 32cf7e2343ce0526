"""From original pixels to what the two image encoders read. One resize each, straight from the original."""

from functools import lru_cache

import torch
import torch.nn.functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f'expected a uint8 image of shape (3, H, W), got {image.dtype} {tuple(image.shape)}')
    # Torch's uint8 kernel is exact integer arithmetic and several times faster on channels-last memory.
    image = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(image, size=(height, width), mode='bicubic', antialias=True)[0].contiguous()


def normalise(image: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 3, H, W) in 0..255 to float32, ImageNet-normalised."""
    # (x / 255 - mean) / std as one product and one sum in place, a third of the time.
    scale, offset = _scale_and_offset(image.device)
    return image.float().mul_(scale).add_(offset)


@lru_cache
def _scale_and_offset(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Each (3, 1, 1), made once per device: an upload makes the host wait."""
    scale = torch.tensor([1 / (255 * std) for std in IMAGENET_STD], device=device).view(3, 1, 1)
    offset = torch.tensor([-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD)], device=device)
    return scale, offset.view(3, 1, 1)


def vision_pixels(image: torch.Tensor, size: int) -> torch.Tensor:
    """Input of InternViT: uint8 (3, H, W) to float32 (3, size, size), bicubic squash, ImageNet-normalised."""
    return normalise(_resize(image, size, size))


def grounding_pixels(image: torch.Tensor, size: int) -> torch.Tensor:
    """Input of SAM 2: uint8 (3, H, W) to uint8 (3, size, size), bicubic squash; the model normalises it itself."""
    return _resize(image, size, size)


def vision_tiles(image: torch.Tensor, size: int, max_num_tiles: int) -> torch.Tensor:
    """Input of InternViT for large images: tiles of the image and, if there are several, the whole image last.

    The published ``dynamic_preprocess`` of InternVL: the image is squashed to the grid of at most ``max_num_tiles``
    squares whose aspect ratio is closest to its own, and cut.

    Args:
        image: (3, H, W) uint8.
        size: pixels per side of a tile.
        max_num_tiles: 1 gives :func:`vision_pixels` alone.

    Returns:
        (T, 3, size, size) float32, T = 1 or 3 .. ``max_num_tiles`` + 1; tiles in reading order.
    """
    height, width = image.shape[-2:]
    rows, columns = _tile_grid(height, width, size, max_num_tiles)
    whole = vision_pixels(image, size)[None]
    if rows * columns == 1:
        return whole
    squashed = normalise(_resize(image, rows * size, columns * size))
    tiles = squashed.view(3, rows, size, columns, size).permute(1, 3, 0, 2, 4).reshape(-1, 3, size, size)
    return torch.cat([tiles, whole])


def _tile_grid(height: int, width: int, size: int, max_num_tiles: int) -> tuple[int, int]:
    best, best_difference = (1, 1), float('inf')
    grids = [(rows, columns) for columns in range(1, max_num_tiles + 1) for rows in range(1, max_num_tiles + 1)]
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        if rows * columns > max_num_tiles:
            break
        difference = abs(width / height - columns / rows)
        # Of grids of the same shape the finer one is taken if the image fills more than half of it.
        larger = difference == best_difference and height * width > 0.5 * size**2 * rows * columns
        if difference < best_difference or larger:
            best, best_difference = (rows, columns), difference
    return best
