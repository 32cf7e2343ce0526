"""What of a batch goes to the device, and how rows lie among images."""

import torch

from llava_sam2.batches import BatchPreprocessor, object_grid


def test_what_only_the_host_reads_stays_there(make_batch):
    batch = make_batch(dict(key=1), dict(key=2, pair=True))
    data = BatchPreprocessor().to('meta')(batch)['data']
    assert data.keys() == batch.keys()
    there = {name for name, value in data.items() if isinstance(value, torch.Tensor) and value.is_meta}
    assert there == {'pixel_values', 'g_pixel_values', 'masks1', 'masks2', 'row_weights'}
    assert torch.equal(data['image2'], batch['image2'])


def test_rows_among_images():
    assert object_grid([2, 0, 2, 2]) == ([0, 2], 3, [3, 0, 4, 5])
    assert object_grid([1, 3]) == ([1, 3], 1, [0, 1])
