"""The same photographs and objects in every format must come out the same."""

import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from dual_loop.datasets import (
    DescribeAnythingDataset,
    OpenImagesDataset,
    RefCOCODataset,
    SA1BDataset,
    SAVPairDataset,
    collate_samples,
    set_work_dir,
)
from dual_loop.datasets.masks import area_mask

SMALL = dict(image_size=112, grounding_size=256)


@pytest.fixture(scope='module')
def coco_masks(real_samples):
    """Annotation id -> (H, W) bool, by pycocotools' own reader."""
    coco = COCO(real_samples / 'ref_seg' / 'refcoco' / 'instances.json')
    return {number: coco.annToMask(annotation) > 0 for number, annotation in coco.anns.items()}


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_counts(real_samples):
    refs = {split: RefCOCODataset(real_samples / 'ref_seg', split=split, **SMALL) for split in ('train', 'val')}
    assert {split: len(dataset) for split, dataset in refs.items()} == dict(train=14, val=2)
    assert len(set(refs['train'].index['ref'])) == 7 and len(set(refs['val'].index['ref'])) == 1
    assert len(SA1BDataset(real_samples / 'sa1b', **SMALL)) == 8
    assert len(OpenImagesDataset(real_samples / 'openimages', **SMALL)) == 8
    assert len(SAVPairDataset(real_samples / 'sav_npz', **SMALL)) == 4
    for split in ('COCOStuff', 'LVIS'):
        assert len(DescribeAnythingDataset(real_samples / 'dam', split, exclude_image_ids=(), **SMALL)) == 4


def test_same_object_same_mask(real_samples, coco_masks):
    size = dict(image_size=448, grounding_size=1024)
    expected = {number: torch.from_numpy(area_mask(mask, 1024)) for number, mask in coco_masks.items()}
    refs = RefCOCODataset(real_samples / 'ref_seg', **size)
    for row in range(0, len(refs), 2):
        assert torch.equal(refs[row]['masks'], expected[refs.index['object'][row]])
    for sample in SA1BDataset(real_samples / 'sa1b', **size):
        number = int(sample['sample_id'].split('_')[-1])
        assert torch.equal(sample['masks'], expected[number])
        seen = iou(sample['masks'].numpy(), coco_masks[number][row_index(coco_masks[number], 1024)])
        assert seen > 0.8, 'the target covers the object in the original picture'
    for split in ('COCOStuff', 'LVIS'):
        for sample in DescribeAnythingDataset(real_samples / 'dam', split, exclude_image_ids=(), **size):
            assert torch.equal(sample['masks'], expected[int(sample['sample_id'].split('_')[1])])


def row_index(mask, size):
    """Nearest original pixel of each target pixel."""
    return tuple(np.ix_(*[(np.arange(size) * side // size) for side in mask.shape]))


def test_open_images_masks_fit_the_coco_masks(real_samples, coco_masks):
    dataset = OpenImagesDataset(real_samples / 'openimages')
    for row in range(len(dataset)):
        number = int(dataset.sample_id(row).split('_')[-1], 16)
        expected = coco_masks[number]
        mask = dataset.read_mask(row, *expected.shape)
        assert mask.shape == tuple(dataset.read_image(row).shape[1:])
        assert iou(mask, expected) >= (0.95 if expected.sum() > 2000 else 0.85), dataset.sample_id(row)
    assert {dataset.words(row)['label'] for row in range(8)} == {'Motorcycle', 'Bus', 'Person', 'Handbag', 'Bear'}


def test_truncated_pair_is_replaced_and_written_down(real_samples, tmp_path):
    dataset = SAVPairDataset(real_samples / 'sav_npz', **SMALL)
    set_work_dir(dataset, tmp_path)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate_samples)
    names = [name for batch in loader for name in batch['sample_ids']]
    assert names[:3] == [f'masklet_data_0000{k}' for k in range(3)] and names[3] in names[:3]
    entry, = map(json.loads, (tmp_path / 'bad_samples.jsonl').read_text().splitlines())
    assert entry['sample_id'] == 'masklet_data_99999' and 'npz' in entry['reason']
    assert dataset.quarantine.count == 1


def test_pair_masks_lie_on_the_stored_ones(real_samples):
    arrays = np.load(real_samples / 'sav_npz' / 'masklet_data_00000.npz')
    sample = SAVPairDataset(real_samples / 'sav_npz', image_size=112, grounding_size=512)[0]
    for frame in '12':
        np.testing.assert_array_equal(sample[f'masks{frame}'], arrays[f'mask{frame}'] > 0)
        np.testing.assert_array_equal(sample[f'g_pixel_values{frame}'].permute(1, 2, 0), arrays[f'frame{frame}'])
