"""Ids of Describe Anything that repeat or contradict, and what only looks like a member."""

import json

import pytest
import torch

from dual_loop.datasets import DescribeAnythingDataset, TooManyBadSamples


def stuff(root, exclude_image_ids=(), **more):
    return DescribeAnythingDataset(root, 'COCOStuff', exclude_image_ids=exclude_image_ids, **more)


def reasons(dataset):
    return {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries}


@pytest.mark.parametrize('archive, member', [
    ('02.tar', 'c_1.jpg'), ('02.tar', 'folder/c_1.jpg'), ('02.tar', 'c_1.png'), ('02.tar', 'c_1.0.jpg')])
def test_two_pictures_of_one_id_are_bad_samples(dam_root, small, tiny, write_tar, archive, member):
    write_tar(dam_root / 'COCOStuff' / 'images' / archive, {member: tiny.jpeg(tiny.picture[::-1].copy())})
    dataset = stuff(dam_root, **small)
    assert [s['sample_id'] for s in dataset] == ['c_2_0']
    assert set(reasons(dataset)) == {'c_1_0', 'c_1_1'}
    assert 'more than one image of that id, in 00.tar and 02.tar' in reasons(dataset)['c_1_0']


def test_a_frame_that_is_there_twice(dam_root, small, tiny, write_tar):
    write_tar(dam_root / 'SAV' / 'images' / '01.tar', {'v_1.00.jpg': tiny.jpeg(tiny.picture)})
    with pytest.raises(TooManyBadSamples, match=r'1 of 1 samples.*first one is v_1_0, .*more than one image'):
        DescribeAnythingDataset(dam_root, 'SAV', optional=True, **small)


def test_an_id_or_a_field_that_stands_there_twice(dam_root, small):
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    text = listing.read_text()
    listing.write_text('{"c_2": {"caption": "Of another object."}, ' + text[1:])
    dataset = stuff(dam_root, **small)
    assert [s['sample_id'] for s in dataset] == ['c_1_0', 'c_1_1']
    assert reasons(dataset) == {'c_2_0': 'its id stands there twice'}
    listing.write_text(text.replace('"caption": " Box number 1."', '"caption": "Another.", "caption": "Box."', 1))
    dataset = stuff(dam_root, **small)
    assert [s['sample_id'] for s in dataset] == ['c_1_1', 'c_2_0']
    assert reasons(dataset) == {'c_1_0': "the region has the key 'caption' twice"}


@pytest.mark.parametrize('excluded', [(), [7]])
def test_regions_of_one_picture_that_name_several_of_coco(dam_root, small, tiny, excluded):
    """One of them may be held out."""
    region = dict(caption='Named.', mask_rle=tiny.rle(tiny.masks[1]))
    regions = dict(c_1=[dict(region, img_id=7), dict(region, img_id=9)], c_2=[dict(region, img_id=11)] * 2)
    (dam_root / 'COCOStuff' / 'annotations.json').write_text(json.dumps(regions))
    dataset = stuff(dam_root, excluded, **small)
    assert [s['sample_id'] for s in dataset] == ['c_2_0', 'c_2_1']
    assert set(reasons(dataset).values()) == {'the regions of one image name several of COCO: 7, 9'}


@pytest.mark.parametrize('hidden', ['._c_1.jpg', '__MACOSX/._c_1.jpg', '__MACOSX/c_1.jpg', '.trash/c_1.jpg'])
def test_hidden_members_and_archives_are_passed_over(dam_root, small, tiny, write_tar, hidden):
    expected = list(stuff(dam_root, **small))
    images = dam_root / 'COCOStuff' / 'images'
    write_tar(images / '02.tar', {hidden: tiny.jpeg(tiny.picture), '.c_9.pickle': b'cos\nsystem\n.'})
    (images / '._00.tar').write_bytes(b'resource fork')
    dataset = stuff(dam_root, **small)
    assert dataset.quarantine.count == 0
    for sample, other in zip(expected, dataset, strict=True):
        assert sample['sample_id'] == other['sample_id'] and torch.equal(sample['masks'], other['masks'])


@pytest.mark.parametrize('caption', ['', ' ', '\u200b', 7, None, ['A box.'], {'text': 'A box.'}, True])
def test_captions_without_words_are_bad_samples(dam_root, small, tiny, caption):
    good = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    (dam_root / 'COCOStuff' / 'annotations.json').write_text(json.dumps(dict(c_1=[good, dict(good, caption=caption)])))
    dataset = stuff(dam_root, **small)
    assert len(dataset) == 1 and reasons(dataset) == {'c_1_1': 'the region has no caption'}
