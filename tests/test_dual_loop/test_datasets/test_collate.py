import pytest
import torch

from dual_loop.datasets import DescribeAnythingDataset, RefCOCODataset, SA1BDataset, SAVPairDataset, collate_samples

FIELDS = {'pixel_values', 'g_pixel_values', 'image1', 'image2', 'prompt_masks', 'masks1', 'masks2', 'captions', 'kinds',
          'describes', 'sources', 'sample_ids', 'row_weights'}


def test_mixed_batch(refcoco_root, sav_root, sa1b_root, small):
    refs = RefCOCODataset(refcoco_root, num_objects=2, **small)
    samples = [refs[0], SAVPairDataset(sav_root, **small)[0], SA1BDataset(sa1b_root, **small)[3], refs[2]]
    batch = collate_samples(samples)
    assert set(batch) == FIELDS
    assert batch['image1'].tolist() == [0, 0, 1, 3, 0, 0], 'both samples of the RefCOCO image share it'
    assert batch['image2'].tolist() == [0, 0, 2, 3, 0, 0]
    assert batch['pixel_values'].shape == (4, 3, 56, 56) and batch['pixel_values'].dtype == torch.float32
    assert batch['g_pixel_values'].shape == (4, 3, 64, 64) and batch['g_pixel_values'].dtype == torch.uint8
    assert batch['prompt_masks'].shape == (6, 8, 8) and batch['prompt_masks'].dtype == torch.bool
    for key in ('masks1', 'masks2'):
        assert batch[key].shape == (6, 64, 64) and batch[key].dtype == torch.bool
    assert batch['image1'].dtype == batch['image2'].dtype == torch.int64
    assert batch['captions'] == [*samples[0]['caption'], None, None, *samples[3]['caption']]
    assert batch['kinds'] == [None] * 6 and batch['describes'] == [False] * 6
    assert batch['sources'] == ['refcoco', 'refcoco', 'sav', 'sa1b', 'refcoco', 'refcoco']
    assert batch['sample_ids'] == ['COCO_7_0_0#0', 'COCO_7_0_0#1', 'a/masklet_data_00001', 'sa_2_12', 'COCO_7_1_10#0',
                                   'COCO_7_1_10#1']
    assert batch['row_weights'].dtype == torch.float32
    torch.testing.assert_close(batch['row_weights'], torch.tensor([1, 1, 2, 2, 1, 1]) / 8)

    assert torch.equal(batch['g_pixel_values'][1], samples[1]['g_pixel_values1'])
    assert torch.equal(batch['pixel_values'][2], samples[1]['pixel_values2'])
    assert torch.equal(batch['prompt_masks'][2], samples[1]['prompt_masks1'])
    assert torch.equal(batch['masks1'][2], samples[1]['masks1'])
    assert torch.equal(batch['masks2'][2], samples[1]['masks2'])
    assert torch.equal(batch['masks1'][1], samples[0]['masks'][1])
    assert torch.equal(batch['masks2'][3], samples[2]['masks'])


def test_kinds_and_descriptions(refcoco_root, dam_root, small):
    refs = RefCOCODataset(refcoco_root, num_objects=2, **small)[0] | dict(kind=['relation', ''])
    batch = collate_samples([refs, DescribeAnythingDataset(dam_root, 'COCOStuff', exclude_image_ids=(), **small)[0]])
    assert batch['kinds'] == ['relation', '', None] and batch['describes'] == [False, False, True]


def test_one_object_of_several_allowed_keeps_its_name(sav_root, small):
    batch = collate_samples([SAVPairDataset(sav_root, num_objects=3, **small)[0]])
    assert batch['sample_ids'] == ['a/masklet_data_00001'] and batch['captions'] == [None]
    assert batch['masks1'].shape == (1, 64, 64) and batch['row_weights'].tolist() == [1]


def test_different_sizes_are_refused(refcoco_root, sa1b_root, small):
    samples = [RefCOCODataset(refcoco_root, **small)[0]]
    for key, name in (('image_size', 'pixel_values'), ('grounding_size', 'g_pixel_values'),
                      ('region_grid', 'prompt_masks')):
        other = SA1BDataset(sa1b_root, **small | {key: 4})[0]
        with pytest.raises(ValueError, match=f'^{name} of .*same image_size'):
            collate_samples(samples + [other])
    with pytest.raises(ValueError, match='at least one'):
        collate_samples([])
