"""Samples that are made in memory, of given lengths, so that a benchmark measures the step and not a disk."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from llava_sam2.portable.image_processing import normalise
from llava_sam2.portable.regions import region_grid
from llava_sam2.randomness import generator_for, seed_for
from llava_sam2.tokenizer import build_tokenizer

WORDS = (
    'the', 'a', 'small', 'large', 'red', 'blue', 'green', 'dark', 'bright', 'round', 'square', 'old', 'wooden',
    'person', 'dog', 'car', 'tree', 'table', 'window', 'left', 'right', 'near', 'behind', 'under', 'above', 'with',
    'and', 'of', 'in', 'on', 'which', 'stands', 'lies', 'looks', 'holds', 'carries', 'wears')


class SyntheticSamples(Dataset):
    """Noise with boxes, in the form of ``datasets.GroundedDataset``; the same number gives the same sample.

    Args:
        size: samples.
        image_size, grounding_size, region_grid: of the model.
        tokenizer: as in the model's config.
        caption_len: tokens of each caption; 0 for samples without caption, which the teacher describes.
        pairs: share of samples whose second image is another one.
        vary: draw each caption's length uniformly from a tenth of ``caption_len`` on.
    """

    source = 'synthetic'

    def __init__(self, size: int, image_size: int, grounding_size: int, region_grid: int, tokenizer: str | dict,
                 caption_len: int = 0, pairs: float = 0.0, vary: bool = False):
        self.size, self.tokenizer = size, tokenizer
        self.image_size, self.grounding_size, self.region_grid = image_size, grounding_size, region_grid
        self.caption_len, self.pairs, self.vary = caption_len, pairs, vary
        self._made: dict[int, dict] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    @property
    def modality_length(self) -> np.ndarray:
        """All alike, for samplers that group by length."""
        return np.full(self.size, max(1, self.caption_len), np.int32)

    @cached_property
    def _encoder(self):
        return build_tokenizer(self.tokenizer)

    def _make(self, number: int) -> dict[str, Any]:
        draw = generator_for(0, 'synthetic', self.caption_len, number)
        two = np.floor((number + 1) * self.pairs) > np.floor(number * self.pairs)
        sample: dict[str, Any] = dict(
            source=self.source, sample_id=f'synthetic-{self.caption_len}-{number}', describes=self.caption_len > 0,
            caption=self._caption(number, draw) if self.caption_len else None)
        for suffix in ('1', '2') if two else ('', ):
            mask = torch.zeros(self.grounding_size, self.grounding_size, dtype=torch.bool)
            side = self.grounding_size // 3
            top, left = torch.randint(self.grounding_size - side, (2, ), generator=draw).tolist()
            mask[top : top + side, left : left + side] = True
            pixels = torch.randint(256, (3, self.image_size, self.image_size), dtype=torch.uint8, generator=draw)
            ground = (3, self.grounding_size, self.grounding_size)
            sample |= {
                f'pixel_values{suffix}': normalise(pixels),
                f'g_pixel_values{suffix}': torch.randint(256, ground, dtype=torch.uint8, generator=draw),
                f'masks{suffix}': mask, f'prompt_masks{suffix}': region_grid(mask, self.region_grid),
                f'image_key{suffix}': f'{sample["sample_id"]}/{suffix}',
            }
        return sample

    def _caption(self, number: int, draw: torch.Generator) -> str:
        rng = np.random.default_rng(seed_for('synthetic words', number))
        length = int(rng.integers(max(1, self.caption_len // 10), self.caption_len + 1)) if self.vary else \
            self.caption_len
        text = ' '.join(rng.choice(WORDS, 2 * length + 8))
        ids = self._encoder.encode(text, add_special_tokens=False)[:length]
        return self._encoder.decode(ids).strip()
