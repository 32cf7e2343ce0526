"""Whether a sample is what ``GroundedDataset`` promises, which collation and models rely on."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from llava_sam2.portable.image_processing import normalise

from .base import GroundedDataset


def violations(sample: Mapping[str, Any], dataset: GroundedDataset) -> Iterator[str]:
    """Where a sample of ``dataset`` differs from the docstring of ``GroundedDataset``, a sentence each."""
    suffixes = ('1', '2') if 'masks1' in sample else ('',)
    for suffix in suffixes:
        for name in ('pixel_values', 'g_pixel_values', 'prompt_masks', 'masks'):
            yield from _tensor(name, f'{name}{suffix}', sample, dataset)
    yield from _captions(sample.get('caption'), len(sample.get(f'masks{suffixes[0]}', ())), dataset)
    for name, expected in dict(source=dataset.source, describes=dataset.describes).items():
        if sample.get(name) != expected:
            yield f'{name} is {sample.get(name)!r}, not {expected!r}'
    for name in ('sample_id', *(f'image_key{suffix}' for suffix in suffixes)):
        if not (isinstance(sample.get(name), str) and sample[name]):
            yield f'{name} is {sample.get(name)!r}, not a name'


def _tensor(name: str, key: str, sample: Mapping[str, Any], dataset: GroundedDataset) -> Iterator[str]:
    shape, kind = dict(
        pixel_values=((3, *[dataset.image_size] * 2), torch.float32),
        g_pixel_values=((3, *[dataset.grounding_size] * 2), torch.uint8),
        prompt_masks=((dataset.region_grid,) * 2, torch.bool),
        masks=((dataset.grounding_size,) * 2, torch.bool))[name]
    value = sample.get(key)
    if value is None:
        yield f'{key} is missing'
        return
    several = dataset.num_objects > 1 and kind == torch.bool
    each = value.shape[1:] if several and 1 <= len(value) <= dataset.num_objects else value.shape
    if each != shape or value.ndim != len(shape) + several or value.dtype != kind:
        objects = f' for each of 1 to {dataset.num_objects} objects' if several else ''
        yield f'{key} is {tuple(value.shape)} {value.dtype}, not {shape} {kind}{objects}'
    elif kind == torch.bool and not value.flatten(-2).any(-1).all():
        yield f'{key} is empty'
    elif kind == torch.float32:
        low, high = (normalise(torch.full((3, 1, 1), level, dtype=torch.uint8)) for level in (0, 255))
        if not ((low - 1e-3 <= value) & (value <= high + 1e-3)).all():
            yield f'{key} is not ImageNet-normalised, it lies in {value.min():.2f} .. {value.max():.2f}'


def _captions(caption: Any, objects: int, dataset: GroundedDataset) -> Iterator[str]:
    captions = caption if dataset.num_objects > 1 else [caption]
    if not isinstance(captions, list) or dataset.num_objects > 1 and len(captions) != objects:
        yield f'caption is {caption!r}, not a list with one for each object'
        return
    for each in captions:
        if not (isinstance(each, str) and each.strip()) and (each is not None or dataset.describes):
            yield f'caption is {each!r}, not {"a description" if dataset.describes else "a text or None"}'
