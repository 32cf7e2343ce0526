"""Pixels of the two encoders against PIL's bicubic resize."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_sam2.image_processing import IMAGENET_MEAN, IMAGENET_STD, grounding_pixels, vision_pixels


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
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD)):
        levels = (pixels[channel].numpy() * std + mean) * 255
        assert np.abs(levels - pil_resize(image, 56)[channel]).max() <= 1.001


@pytest.mark.parametrize('bad', [torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8)])
def test_other_inputs_are_refused(bad):
    with pytest.raises(ValueError, match=r'uint8 image of shape \(3, H, W\)'):
        vision_pixels(bad, 8)
