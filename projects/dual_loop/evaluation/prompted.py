"""The region that a mask, a box or a point means in a photograph.

A mask is itself. A box or a point becomes the mask decoder's own answer to that prompt, the one of its three masks that
it rates best, where SAM 2 was trained on prompts: in models that choose masks by ``predicted_iou``, as the released
ones do. A model from random weights (``mask_selection='single'``) has never been asked by boxes and points; there a box
is the region itself, and a point a disc with a radius of an eighth of the picture's shorter side
(docs/decisions.md, "A box is itself where no decoder was taught").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dual_loop.datasets.images import read_mask_image
from llava_sam2.portable.image_processing import normalise
from llava_sam2.portable.network import Sa2VANetwork, binary_masks

from .predictor import Picture


@dataclass
class Region:
    """A region of a picture.

    Attributes:
        mask: (H, W) bool, not empty.
        prompt: what the user gave.
        rule: how it became the mask.
    """

    mask: torch.Tensor
    prompt: str
    rule: str


def masked_region(path: Path, size: tuple[int, int]) -> Region:
    """The region of a mask file; ``size`` is (height, width) of the photograph.

    Raises:
        ValueError: it cannot be read, has another size or nothing inside.
    """
    try:
        mask = torch.from_numpy(read_mask_image(path))
    except ValueError as error:
        raise no_picture(path, error) from error
    if tuple(mask.shape) != size:
        raise ValueError(f'{path} is a mask of {_size(mask.shape)} and the photo has {_size(size)} pixels as viewers '
                         'show it: give a mask of that size')
    if not mask.any():
        raise ValueError(f'{path} is black, so no region is marked: paint the region in any other colour')
    return Region(mask, f'mask {path.name}', 'the mask itself')


def no_picture(path: Path, error: ValueError) -> ValueError:
    """What to raise of a file of the user's that cannot be read as a picture."""
    reason = re.sub(' <.* object at .*>', '', str(error))  # the name that PIL gives to bytes
    return ValueError(f'{path} is no picture that can be read ({reason}): give a JPEG, PNG or the like')


def boxed_region(network: Sa2VANetwork, picture: Picture, box: Sequence[float]) -> Region:
    """The region that a box (x, y, width, height) in pixels of the photograph means.

    Raises:
        ValueError: it does not lie inside the photograph.
    """
    (height, width), (left, top, wide, high) = picture.size, box
    if left < 0 or top < 0 or left + wide > width or top + high > height:
        raise ValueError(f'--box {_listed(box)} ends outside of the photo, which is {_size(picture.size)} pixels: give '
                         'x,y of the upper left corner, width and height')
    itself = torch.zeros(height, width, dtype=torch.bool)
    itself[int(top):-int(-(top + high) // 1), int(left):-int(-(left + wide) // 1)] = True
    return _region(network, picture, f'box {_listed(box)}', itself, 'the box itself',
                   box=(left, top, left + wide, top + high))


def pointed_region(network: Sa2VANetwork, picture: Picture, point: Sequence[float]) -> Region:
    """The region that a point (x, y) in pixels of the photograph means.

    Raises:
        ValueError: it does not lie inside the photograph.
    """
    (height, width), (x, y) = picture.size, point
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f'--point {_listed(point)} lies outside of the photo, which is {_size(picture.size)} pixels')
    rows, columns = torch.arange(height)[:, None] - int(y), torch.arange(width)[None] - int(x)
    radius = max(1, min(height, width) // 8)
    disc = rows**2 + columns**2 <= radius**2
    return _region(network, picture, f'point {_listed(point)}', disc, f'a disc of {radius} pixels round the point',
                   point=(x, y))


@torch.no_grad()
def decoder_answer(network: Sa2VANetwork, picture: Picture, box: Sequence[float] | None = None,
                   point: Sequence[float] | None = None) -> torch.Tensor:
    """What SAM 2 makes of a box (left, top, right, bottom) or a point in pixels of the photograph: (H, W) bool."""
    sam, side = network.grounding_encoder, network.config.grounding_size
    height, width = picture.size
    scale = torch.tensor([side / width, side / height], device=network.device)
    pixels = normalise(picture.grounding[None].to(network.device)).to(network.dtype)
    if box is not None:
        corners = torch.tensor(box, dtype=torch.float32, device=network.device).view(2, 2) * scale
        said = sam(pixel_values=pixels, input_boxes=corners.view(1, 1, 4), multimask_output=True)
    else:
        place = torch.tensor(point, dtype=torch.float32, device=network.device) * scale
        said = sam(pixel_values=pixels, input_points=place.view(1, 1, 1, 2), multimask_output=True,
                   input_labels=torch.ones(1, 1, 1, dtype=torch.int32, device=network.device))
    best = said.iou_scores[0, 0].argmax()
    return binary_masks(said.pred_masks[:, :, best], (side, side), picture.size)[0, 0].cpu()


def _region(network: Sa2VANetwork, picture: Picture, prompt: str, otherwise: torch.Tensor, rule: str, **where
            ) -> Region:
    if network.config.mask_selection != 'predicted_iou':
        return Region(otherwise, prompt, rule)
    answer = decoder_answer(network, picture, **where)
    if not answer.any():
        return Region(otherwise, prompt, f'{rule}, since the mask decoder found nothing')
    return Region(answer, prompt, "the mask decoder's answer")


def _size(size: Sequence[int]) -> str:
    return f'{size[1]} x {size[0]}'


def _listed(numbers: Sequence[float]) -> str:
    return ','.join(f'{number:g}' for number in numbers)
