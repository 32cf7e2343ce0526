"""From original pixels to what the two image encoders read. One resize each, straight from the original."""

import torch
import torch.nn.functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _resize(image: torch.Tensor, size: int) -> torch.Tensor:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f'expected a uint8 image of shape (3, H, W), got {image.dtype} {tuple(image.shape)}')
    # Torch's uint8 kernel is exact integer arithmetic and several times faster on channels-last memory.
    image = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(image, size=(size, size), mode='bicubic', antialias=True)[0].contiguous()


def normalise(image: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 3, H, W) in 0..255 to float32, ImageNet-normalised."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(3, 1, 1)
    return (image.float() / 255 - mean) / std


def vision_pixels(image: torch.Tensor, size: int) -> torch.Tensor:
    """Input of InternViT: uint8 (3, H, W) to float32 (3, size, size), bicubic squash, ImageNet-normalised."""
    return normalise(_resize(image, size))


def grounding_pixels(image: torch.Tensor, size: int) -> torch.Tensor:
    """Input of SAM 2: uint8 (3, H, W) to uint8 (3, size, size), bicubic squash; the model normalises it itself."""
    return _resize(image, size)
