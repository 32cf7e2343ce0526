"""Batches of a loop with all their sizes and without memory."""

from collections.abc import Mapping
from typing import Any

import torch

from dual_loop.models import DualLoopModel
from dual_loop.models.loop import Loop

from .as_on_gpu import REGION_SHARE
from .shadow import empty

#: Tokens of a caption where no loop of the config has a bound: the default bound of the others.
UNBOUNDED = 256


def caption_len(model: DualLoopModel, loop: Loop) -> int:
    """Tokens of a caption of a loop at most."""
    return getattr(loop, 'max_caption_len', None) or model.max_caption_len or UNBOUNDED


def shadow_batch(model: DualLoopModel, loop: Loop, rows: int, pairs: float = 0.5) -> Mapping[str, Any]:
    """A collated batch (docs/data.md) of samples with one object each and captions as long as they may be.

    Args:
        model: with the sizes.
        loop: whose batch it is. Rows have no caption where it asks the teacher.
        rows: R.
        pairs: share of the rows with a second image, where the loop asks the teacher.
    """
    config, vocabulary = model.base.config, model.base.vocabulary
    tokens = caption_len(model, loop)
    taught = loop.uses_teacher and not loop.needs_captions
    word = vocabulary.decode([int(vocabulary.ordinary_ids[len(vocabulary.ordinary_ids) // 2])])
    caption = vocabulary.decode(vocabulary.encode(word * 2 * tokens)[:tokens])
    image1, image2, images = [], [], 0
    for row in range(rows):
        two = taught and int((row + 1) * pairs) > int(row * pairs)
        image1.append(images)
        image2.append(images + two)
        images += 1 + two
    region = torch.zeros(rows, config.region_grid, config.region_grid, dtype=torch.bool)
    region.flatten(1)[:, : max(1, config.num_image_tokens // REGION_SHARE)] = True
    ground = config.grounding_size
    return dict(
        pixel_values=empty(images, 3, config.image_size, config.image_size),
        g_pixel_values=empty(images, 3, ground, ground, dtype=torch.uint8),
        image1=torch.tensor(image1), image2=torch.tensor(image2), prompt_masks=region,
        masks1=empty(rows, ground, ground, dtype=torch.bool), masks2=empty(rows, ground, ground, dtype=torch.bool),
        captions=[None if taught else caption] * rows, kinds=[None] * rows, describes=[not taught] * rows,
        sources=['estimate'] * rows, sample_ids=[f'estimate-{row}' for row in range(rows)], row_weights=empty(rows))
