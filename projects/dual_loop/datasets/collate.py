"""Samples to one batch: a row per object, each image once."""

from typing import Any

import torch
from mmengine.registry import FUNCTIONS


@FUNCTIONS.register_module()
def collate_samples(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Put samples of any data sets together; their image sizes must agree.

    Args:
        samples: of a ``GroundedDataset``, single frames and pairs mixed at will.

    Returns:
        With I distinct images and R rows, one per object:

        - ``pixel_values`` (I, 3, S, S) float32 and ``g_pixel_values`` (I, 3, G, G) uint8;
        - ``image1`` (R,) int64, the image that the caption describes, and ``image2`` (R,) int64, the one to find the
          object in; equal for single frames;
        - ``prompt_masks`` (R, g, g) bool and ``masks1`` (R, G, G) bool on image1, ``masks2`` (R, G, G) bool on image2;
        - lists of R: ``captions`` and ``kinds`` of expressions (str or None), ``describes`` (bool: the caption is a
          full description of the region and not a mere phrase), ``sources``, ``sample_ids`` ('<sample_id>#<k>' for
          several objects);
        - ``row_weights`` (R,) float32, 1 / (objects of the row's sample x samples), which sum to 1.

    Raises:
        ValueError: no samples, or samples of different sizes.
    """
    if not samples:
        raise ValueError('a batch needs at least one sample')
    images = _Images()
    rows: dict[str, list] = {key: [] for key in ('image1', 'image2', 'prompt_masks', 'masks1', 'masks2', 'captions',
                                                 'kinds', 'describes', 'sources', 'sample_ids', 'row_weights')}
    for sample in samples:
        first, second = ('1', '2') if 'masks1' in sample else ('', '')
        captions = sample['caption'] if isinstance(sample['caption'], list) else [sample['caption']]
        count = len(captions)
        rows['image1'] += [images.place(sample, first)] * count
        rows['image2'] += [images.place(sample, second)] * count
        rows['prompt_masks'] += _each(sample[f'prompt_masks{first}'])
        rows['masks1'] += _each(sample[f'masks{first}'])
        rows['masks2'] += _each(sample[f'masks{second}'])
        rows['captions'] += captions
        kinds = sample.get('kind')
        rows['kinds'] += kinds if isinstance(kinds, list) else [kinds] * count
        rows['describes'] += [sample['describes']] * count
        rows['sources'] += [sample['source']] * count
        rows['sample_ids'] += [f'{sample["sample_id"]}#{k}' if count > 1 else sample['sample_id'] for k in range(count)]
        rows['row_weights'] += [1 / (count * len(samples))] * count
    return dict(
        pixel_values=_stack('pixel_values', images.vision, images.keys),
        g_pixel_values=_stack('g_pixel_values', images.grounding, images.keys),
        **{key: torch.tensor(rows[key], dtype=torch.int64) for key in ('image1', 'image2')},
        **{key: _stack(key, rows[key], rows['sample_ids']) for key in ('prompt_masks', 'masks1', 'masks2')},
        **{key: rows[key] for key in ('captions', 'kinds', 'describes', 'sources', 'sample_ids')},
        row_weights=torch.tensor(rows['row_weights'], dtype=torch.float32))


class _Images:
    """The distinct images of a batch, in order of appearance."""

    def __init__(self):
        self.keys: list[str] = []
        self.vision: list[torch.Tensor] = []
        self.grounding: list[torch.Tensor] = []

    def place(self, sample: dict[str, Any], suffix: str) -> int:
        key = sample[f'image_key{suffix}']
        if key not in self.keys:
            self.keys.append(key)
            self.vision.append(sample[f'pixel_values{suffix}'])
            self.grounding.append(sample[f'g_pixel_values{suffix}'])
        return self.keys.index(key)


def _each(masks: torch.Tensor) -> list[torch.Tensor]:
    """(n, ..., ...) or one (..., ...) as a list of n."""
    return list(masks if masks.ndim == 3 else masks[None])


def _stack(name: str, tensors: list[torch.Tensor], owners: list[str]) -> torch.Tensor:
    for tensor, owner in zip(tensors, owners):
        if tensor.shape != tensors[0].shape:
            raise ValueError(f'{name} of {owner} has shape {tuple(tensor.shape)}, of {owners[0]} '
                             f'{tuple(tensors[0].shape)}: give all data sets of a loader the same image_size, '
                             'grounding_size and region_grid')
    return torch.stack(tensors)
