"""Collated batches: what of them goes to the device, and what each row weighs."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS

from .portable.sequences import on_device


@MODELS.register_module()
class BatchPreprocessor(BaseDataPreprocessor):
    """Move a collated batch to the model's device, but for what the host reads, as the ``data`` of ``forward``."""

    #: What only the host reads.
    HOST = ('image1', 'image2', 'prompt_masks')

    def __init__(self):
        super().__init__(non_blocking=True)

    def forward(self, data: Mapping, training: bool = False) -> dict:
        kept = {name: data[name] for name in self.HOST if name in data}
        cast = self.cast_data({name: value for name, value in data.items() if name not in kept})
        return dict(data=cast | kept, data_samples=None)


def usable_weights(data: Mapping) -> torch.Tensor:
    """(R,) weight of each row in the batch mean; a row without mask counts in the denominator with value 0."""
    described = data['prompt_masks'].flatten(1).any(dim=1).tolist()
    usable = data['masks2'].flatten(1).any(dim=1) & on_device(described, data['masks2'].device)
    return data['row_weights'] * usable


def object_grid(image_of_row: Sequence[int]) -> tuple[list[int], int, list[int]]:
    """How rows that share images lie in a grid of images and their objects.

    Returns:
        The images that rows have, ascending; the number of rows of the image that has most; place of each row in the
        flattened grid of these two.
    """
    used = sorted(set(image_of_row))
    most = max(image_of_row.count(image) for image in used)
    seen = dict.fromkeys(used, 0)
    places = []
    for image in image_of_row:
        places.append(used.index(image) * most + seen[image])
        seen[image] += 1
    return used, most, places
