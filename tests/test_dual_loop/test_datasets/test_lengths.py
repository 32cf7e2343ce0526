import numpy as np
import torch

from dual_loop.datasets.lengths import region_token_estimate, text_token_counts
from llava_sam2.portable.regions import region_grid


def test_region_estimate_is_the_mean_count_of_cells_over_all_places():
    grid, side = 16, 320
    for width, height in ((10, 10), (50, 30), (120, 80)):
        rng = np.random.default_rng(0)
        masks = torch.zeros(200, side, side, dtype=torch.bool)
        for mask in masks:
            x, y = rng.integers(0, side - width), rng.integers(0, side - height)
            mask[y:y + height, x:x + width] = True
        counted = region_grid(masks, grid).sum((1, 2)).float().mean().item()
        estimate, = region_token_estimate(*(np.array([float(v)]) for v in (width, height, width * height, side, side)),
                                          grid=grid)
        assert abs(estimate - counted) < 0.1 * counted + 0.6


def test_region_estimate_stays_in_range():
    nan = np.array([np.nan])
    assert region_token_estimate(nan, nan, nan, nan, nan, grid=16).tolist() == [26]
    one = np.array([1.0])
    assert region_token_estimate(one, one, one, one, one, grid=16).tolist() == [256]
    assert region_token_estimate(one * 0, one * 0, one * 0, one, one, grid=16).tolist() == [1]


def test_text_tokens():
    class Letters:
        def __call__(self, texts, add_special_tokens):
            assert not add_special_tokens
            return type('Batch', (), dict(input_ids=[list(text) for text in texts]))

    assert text_token_counts(iter(['ab', 'abc']), Letters()).tolist() == [2, 3]
    assert text_token_counts(['one two', 'one'], None).tolist() == [3, 2]
