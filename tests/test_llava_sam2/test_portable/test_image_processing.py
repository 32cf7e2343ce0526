"""Pixels of the two encoders against PIL's bicubic resize."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_sam2.portable.image_processing import grounding_pixels, normalise, vision_pixels, vision_tiles

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=[(90, 61), (33, 140), (48, 48)])
def image(request) -> torch.Tensor:
    """Smooth, as photographs are: on white noise PIL's own rounding between its two passes shows."""
    height, width = request.param
    coarse = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode='bilinear')[0].round().to(torch.uint8)


def pil_resize(image: torch.Tensor, size: int) -> np.ndarray:
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1).astype(int)


def test_grounding_pixels_are_within_one_grey_level_of_pil(image):
    pixels = grounding_pixels(image, 40)
    assert pixels.dtype == torch.uint8
    assert np.abs(pixels.numpy().astype(int) - pil_resize(image, 40)).max() <= 1
    assert (pixels.numpy() == pil_resize(image, 40)).mean() > 0.8


def test_vision_pixels_are_normalised(image):
    pixels = vision_pixels(image, 56)
    assert pixels.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(MEAN, STD)):
        levels = (pixels[channel].numpy() * std + mean) * 255
        assert np.abs(levels - pil_resize(image, 56)[channel]).max() <= 1.001


def test_normalise_is_the_formula_to_the_last_bits_of_float32():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    mean, std = (np.array(each)[:, None, None] for each in (MEAN, STD))
    normalised = normalise(torch.from_numpy(levels))
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised.numpy(), (levels / 255 - mean) / std, rtol=0, atol=5e-7)


@pytest.mark.parametrize('bad', [torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8)])
def test_other_inputs_are_refused(bad):
    with pytest.raises(ValueError, match=r'uint8 image of shape \(3, H, W\)'):
        vision_pixels(bad, 8)


@pytest.mark.parametrize('size, max_num_tiles, grid', [
    ((30, 30), 12, (1, 1)),  # would fill less than half of four tiles
    ((50, 50), 12, (2, 2)),
    ((80, 80), 12, (3, 3)),
    ((80, 80), 8, (2, 2)),
    ((40, 160), 12, (1, 4)),
    ((160, 40), 12, (4, 1)),
    ((160, 40), 3, (3, 1)),
    ((60, 40), 12, (3, 2)),
    ((160, 40), 1, (1, 1)),
])
def test_tiles_are_cut_from_the_closest_grid_and_the_whole_image_is_last(size, max_num_tiles, grid):
    """The grid by hand, of 28 px tiles; the cutting against PIL's resize and crop."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 255
    image = torch.nn.functional.interpolate(coarse, size=size, mode='bicubic')[0].clamp(0, 255).round().to(torch.uint8)
    tiles = vision_tiles(image, 28, max_num_tiles)
    rows, columns = grid
    assert tiles.shape == (rows * columns + (rows * columns > 1), 3, 28, 28)
    assert torch.equal(tiles[-1], vision_pixels(image, 28))
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize((28 * columns, 28 * rows), Image.Resampling.BICUBIC)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    for index in range(rows * columns):
        left, top = index % columns * 28, index // columns * 28
        crop = np.asarray(picture.crop((left, top, left + 28, top + 28))).transpose(2, 0, 1)
        assert ((tiles[index] * std + mean) * 255 - torch.from_numpy(crop.astype(np.float32))).abs().max() <= 2.001
