import json

import numpy as np
import pytest
import torch

from dual_loop.datasets import DescribeAnythingDataset, MissingData, TooManyBadSamples


def test_regions_of_stills(dam_root, small, tiny):
    dataset = DescribeAnythingDataset(dam_root, 'COCOStuff', **small)
    samples = list(dataset)
    assert [s['sample_id'] for s in samples] == ['c_1_0', 'c_1_1', 'c_2_0']
    assert [s['caption'] for s in samples] == ['Box number 1.', 'Box number 2.', 'Box number 1.']
    assert samples[0]['source'] == 'dam_cocostuff'
    assert samples[0]['image_key'] == samples[1]['image_key'] != samples[2]['image_key']
    for number, sample in ((1, samples[0]), (2, samples[1])):
        assert abs(sample['masks'].float().mean().item() - tiny.masks[number].mean()) < 0.01
    pair = DescribeAnythingDataset(dam_root, 'COCOStuff', num_objects=4, **small)[1]
    assert pair['caption'] == ['Box number 2.', 'Box number 1.']


def test_clip_shows_its_first_frame(dam_root, small):
    still = DescribeAnythingDataset(dam_root, 'COCOStuff', **small)[0]
    clip, = DescribeAnythingDataset(dam_root, 'SAV', **small)
    assert clip['sample_id'] == 'v_1_0' and torch.equal(clip['g_pixel_values'], still['g_pixel_values'])


def test_one_mask_per_frame(dam_root, small, tiny):
    listing = dam_root / 'SAV' / 'annotations.json'
    listing.write_text(json.dumps(dict(v_1=dict(caption='Late.', mask_rle=[None, tiny.rle(tiny.masks[1])]))))
    clip, = DescribeAnythingDataset(dam_root, 'SAV', **small)
    still = DescribeAnythingDataset(dam_root, 'COCOStuff', **small)[0]
    assert clip['g_pixel_values'].float().mean() < 0.6 * still['g_pixel_values'].float().mean(), 'the darker frame 1'
    assert torch.equal(clip['masks'], still['masks'])


def test_images_can_be_excluded(dam_root, small):
    dataset = DescribeAnythingDataset(dam_root, 'COCOStuff', exclude_image_ids=[7], **small)
    assert [s['sample_id'] for s in dataset] == ['c_2_0'] and dataset.quarantine.count == 0


def test_unusable_regions_are_counted(dam_root, small, tiny):
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    good = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    regions = [good, dict(good, caption=' '), dict(good, caption=None), dict(caption='No mask.'), 'text',
               dict(good, mask_rle=dict(size=[0, 0], counts='')), dict(good, mask_rle=tiny.rle(tiny.masks[1].T))]
    listing.write_text(json.dumps(dict(c_1=regions, c_9=[good])))
    dataset = DescribeAnythingDataset(dam_root, 'COCOStuff', **small)
    assert len(dataset) == 2 and dataset.quarantine.count == 6
    assert dataset[1]['sample_id'] == 'c_1_0', 'a mask of another size shows only when the image is read'
    reasons = {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries}
    assert 'no archive' in reasons['c_9_0'] and 'belongs to an image' in reasons['c_1_6']
    listing.write_text(json.dumps(dict(c_1=[good] + [dict(good, caption='')] * 30)))
    with pytest.raises(TooManyBadSamples, match='30 of 31'):
        DescribeAnythingDataset(dam_root, 'COCOStuff', **small)


def test_refusals(dam_root, small, write_tar):
    with pytest.raises(ValueError, match='COCOStuff'):
        DescribeAnythingDataset(dam_root, 'COCO', **small)
    with pytest.raises(MissingData, match='LVIS'):
        DescribeAnythingDataset(dam_root, 'LVIS', **small)
    write_tar(dam_root / 'COCOStuff' / 'images' / '02.tar', {'../c_2.jpg': b'bad'})
    with pytest.raises(ValueError, match=r'02\.tar is refused'):
        DescribeAnythingDataset(dam_root, 'COCOStuff', **small)
    for file in (dam_root / 'COCOStuff' / 'images').iterdir():
        file.unlink()
    with pytest.raises(MissingData, match=r'\*\.tar'):
        DescribeAnythingDataset(dam_root, 'COCOStuff', **small)
    (dam_root / 'SAV' / 'annotations.json').write_text('[]')
    with pytest.raises(ValueError, match='annotations.json is not a dictionary'):
        DescribeAnythingDataset(dam_root, 'SAV', **small)


def test_cut_archive_is_replaced(dam_root, small):
    tar = dam_root / 'COCOStuff' / 'images' / '01.tar'
    dataset = DescribeAnythingDataset(dam_root, 'COCOStuff', **small)
    tar.write_bytes(tar.read_bytes()[:600])
    assert dataset[2]['sample_id'].startswith('c_1') and dataset.quarantine.count == 1


def test_pixels_are_those_of_the_member(dam_root, small):
    first, _, second = DescribeAnythingDataset(dam_root, 'COCOStuff', **small)
    flipped = second['g_pixel_values'].flip(1).numpy().astype(int)
    assert np.abs(first['g_pixel_values'].numpy().astype(int) - flipped).mean() < 3
