import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from dual_loop.datasets import (
    DescribeAnythingDataset,
    MissingData,
    TooManyBadSamples,
    describe_anything,
    held_out_image_ids,
)
from dual_loop.datasets.plain_pickle import UnsafePickle
from dual_loop.datasets.refs import coco_image_id


def stuff(root, exclude_image_ids=(), split='COCOStuff', **more):
    return DescribeAnythingDataset(root, split, exclude_image_ids=exclude_image_ids, **more)


def reasons(dataset):
    return {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries}


def same(first, second):
    assert len(first) == len(second) and first.quarantine.entries == second.quarantine.entries
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key], key


def into_pickles(root, split='COCOStuff', protocol=2, change=lambda regions: regions):
    """The same regions as pickles beside the images instead of in annotations.json."""
    listing = root / split / 'annotations.json'
    content = json.loads(listing.read_text())
    listing.unlink()
    for path in (root / split / 'images').glob('*.tar'):
        with tarfile.open(path) as archive:
            members = {info.name: archive.extractfile(info).read() for info in archive if 'pickle' not in info.name}
        with tarfile.open(path, 'w') as archive:
            for name, data in members.items():
                add(archive, name, data)
            for key in sorted({name.removeprefix('./').split('.')[0] for name in members} & content.keys()):
                add(archive, f'{key}.pickle', pickle.dumps(change(content[key]), protocol))


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def test_regions_of_stills(dam_root, small, tiny):
    dataset = stuff(dam_root, **small)
    samples = list(dataset)
    assert [s['sample_id'] for s in samples] == ['c_1_0', 'c_1_1', 'c_2_0']
    assert [s['caption'] for s in samples] == ['Box number 1.', 'Box number 2.', 'Box number 1.']
    assert samples[0]['source'] == 'dam_cocostuff'
    assert samples[0]['image_key'] == samples[1]['image_key'] != samples[2]['image_key']
    for number, sample in ((1, samples[0]), (2, samples[1])):
        assert abs(sample['masks'].float().mean().item() - tiny.masks[number].mean()) < 0.01
    pair = stuff(dam_root, num_objects=4, **small)[1]
    assert pair['caption'] == ['Box number 2.', 'Box number 1.']


def test_clip_shows_its_first_frame(dam_root, small):
    still = stuff(dam_root, **small)[0]
    clip, = DescribeAnythingDataset(dam_root, 'SAV', **small)
    assert clip['sample_id'] == 'v_1_0' and torch.equal(clip['g_pixel_values'], still['g_pixel_values'])


def test_one_mask_per_frame(dam_root, small, tiny):
    listing = dam_root / 'SAV' / 'annotations.json'
    listing.write_text(json.dumps(dict(v_1=dict(caption='Late.', mask_rle=[None, tiny.rle(tiny.masks[1])]))))
    clip, = DescribeAnythingDataset(dam_root, 'SAV', **small)
    still = stuff(dam_root, **small)[0]
    assert clip['g_pixel_values'].float().mean() < 0.6 * still['g_pixel_values'].float().mean(), 'the darker frame 1'
    assert torch.equal(clip['masks'], still['masks'])


@pytest.mark.parametrize('make', [lambda: [7], lambda: iter([7]), lambda: np.array([7]), lambda: lambda: iter([7]),
                                  lambda: dict(type=lambda ids: ids, ids=[7])])
def test_images_can_be_excluded(dam_root, small, make):
    dataset = stuff(dam_root, make(), **small)
    assert [s['sample_id'] for s in dataset] == ['c_2_0'] and dataset.quarantine.count == 0


@pytest.mark.parametrize('split', ['COCOStuff', 'LVIS', 'PACO'])
def test_splits_on_images_of_coco_must_be_told_what_to_leave_out(dam_root, small, split):
    (dam_root / 'COCOStuff').rename(dam_root / split)
    with pytest.raises(ValueError, match=f'{split} shows images of COCO.*held_out_image_ids.*or \\(\\)'):
        DescribeAnythingDataset(dam_root, split, **small)
    assert len(stuff(dam_root, (), split, **small)) == 3


def test_ids_of_coco_mean_nothing_in_other_splits(dam_root, small):
    listing = dam_root / 'SAV' / 'annotations.json'
    regions = json.loads(listing.read_text())
    listing.write_text(json.dumps({key: dict(region, img_id=7) for key, region in regions.items()}))
    assert len(stuff(dam_root, [7], 'SAV', **small)) == len(DescribeAnythingDataset(dam_root, 'SAV', **small)) == 1


def test_what_refcoco_holds_out_is_left_out_and_read_again_when_it_changes(dam_root, refcoco_root, small):
    held_out = dict(type=held_out_image_ids, data_root=refcoco_root)
    assert [s['sample_id'] for s in stuff(dam_root, held_out, **small)] == ['c_1_0', 'c_1_1'], 'image 8 is in val'
    named = dict(held_out, type='dual_loop.datasets.held_out_image_ids')
    assert len(stuff(dam_root, named, **small)) == 2
    file = refcoco_root / 'refcoco' / 'refs(unc).p'
    refs = pickle.loads(file.read_bytes())
    for ref in refs:
        ref['split'] = 'testA' if ref['image_id'] == 7 else 'train'
    file.write_bytes(pickle.dumps(refs))
    assert [s['sample_id'] for s in stuff(dam_root, held_out, **small)] == ['c_2_0']
    with pytest.raises(FileNotFoundError, match='data_root'):
        stuff(dam_root, dict(held_out, data_root=dam_root), optional=True, **small)


@pytest.mark.parametrize('name, number', [
    (194216, 194216), ('194216', 194216), ('000000194216', 194216), ('000000194216.jpg', 194216),
    ('COCO_train2014_000000194216.jpg', 194216), ('train2017/000000194216.jpg', 194216),
    ('COCO_val2014_000000000007.JPG', 7), (0, 0), (None, None), (True, None), (7.0, None), (-7, None), ('', None),
    ('seven', None), ('7_1', None), ('\u0667', None), ('7 ', None), ('7\n', None), ([7], None), (b'7', None),
    ('000cd456-ff8d-499b-b0c1-4acead128a8b_000024.jpeg', None), ('a1b_7.jpg', None), ('1' * 13, None)])
def test_ids_of_coco_images(name, number):
    assert coco_image_id(name) == number


@pytest.mark.parametrize('name, kept', [
    (7, False), ('7', False), ('COCO_train2014_000000000007.jpg', False), ('train2017/000000000007.jpg', False),
    (9, True), ('000000000009.jpg', True)])
def test_an_image_is_left_out_however_it_is_named(dam_root, small, tiny, name, kept):
    region = dict(caption='Named.', mask_rle=tiny.rle(tiny.masks[1]), img_id=name)
    other = dict(region, caption='Other.', img_id=11)
    (dam_root / 'COCOStuff' / 'annotations.json').write_text(json.dumps(dict(c_1=[region], c_2=[other])))
    dataset = stuff(dam_root, [7], **small)
    assert [s['caption'] for s in dataset] == ['Named.'] * kept + ['Other.'] and dataset.quarantine.count == 0


@pytest.mark.parametrize('more', [{}, dict(img_id=None), dict(img_id='image seven'), dict(img_id=[7]), dict(img_id=7.5),
                                  dict(img_id='000cd456-ff8d-499b-b0c1-4acead128a8b_000024.jpeg')])
def test_a_region_that_may_be_held_out_is_a_bad_sample(dam_root, small, tiny, more):
    good = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    listing.write_text(json.dumps(dict(c_1=[dict(good, img_id=9), good | more])))
    dataset = stuff(dam_root, [7], **small)
    assert len(dataset) == 1 and 'tells no COCO image' in reasons(dataset)['c_1_1']
    assert len(stuff(dam_root, (), **small)) == 2
    (dam_root / 'COCOStuff').rename(dam_root / 'PACO')
    ego4d = 'ff8d' in str(more)
    assert len(stuff(dam_root, [7], 'PACO', **small)) == 1 + ego4d, 'a frame of Ego4D is no image of COCO'


def test_unusable_regions_are_counted(dam_root, small, tiny):
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    good = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    regions = [good, dict(good, caption=' \t\n '), dict(good, caption=None), dict(caption='No mask.'), 'text',
               dict(good, mask_rle=dict(size=[0, 0], counts='')), dict(good, mask_rle=tiny.rle(tiny.masks[1].T))]
    listing.write_text(json.dumps(dict(c_1=regions, c_9=[good])))
    dataset = stuff(dam_root, **small)
    assert len(dataset) == 2 and dataset.quarantine.count == 6
    assert dataset[1]['sample_id'] == 'c_1_0', 'a mask of another size shows only when the image is read'
    assert 'no archive' in reasons(dataset)['c_9_0'] and 'belongs to an image' in reasons(dataset)['c_1_6']
    listing.write_text(json.dumps(dict(c_1=[good] + [dict(good, caption='')] * 30)))
    with pytest.raises(TooManyBadSamples, match='30 of 31'):
        stuff(dam_root, **small)


def test_refusals(dam_root, small, write_tar):
    with pytest.raises(ValueError, match='COCOStuff'):
        DescribeAnythingDataset(dam_root, 'COCO', **small)
    with pytest.raises(MissingData, match='LVIS'):
        stuff(dam_root, (), 'LVIS', **small)
    write_tar(dam_root / 'COCOStuff' / 'images' / '02.tar', {'../c_2.jpg': b'bad'})
    with pytest.raises(ValueError, match=r'02\.tar is refused'):
        stuff(dam_root, **small)
    for file in (dam_root / 'COCOStuff' / 'images').iterdir():
        file.unlink()
    with pytest.raises(MissingData, match=r'\*\.tar'):
        stuff(dam_root, **small)
    (dam_root / 'SAV' / 'annotations.json').write_text('[]')
    with pytest.raises(ValueError, match='annotations.json is not a dictionary'):
        DescribeAnythingDataset(dam_root, 'SAV', **small)


def test_cut_archive_is_replaced(dam_root, small):
    tar = dam_root / 'COCOStuff' / 'images' / '01.tar'
    dataset = stuff(dam_root, **small)
    tar.write_bytes(tar.read_bytes()[:600])
    assert dataset[2]['sample_id'].startswith('c_1') and dataset.quarantine.count == 1


def test_pixels_are_those_of_the_member(dam_root, small):
    first, _, second = stuff(dam_root, **small)
    flipped = second['g_pixel_values'].flip(1).numpy().astype(int)
    assert np.abs(first['g_pixel_values'].numpy().astype(int) - flipped).mean() < 3


def test_long_captions_are_kept_whole(dam_root, small, tiny):
    caption = ' '.join(f'word{k}' for k in range(5000))
    region = dict(caption=caption, mask_rle=tiny.rle(tiny.masks[1]))
    (dam_root / 'COCOStuff' / 'annotations.json').write_text(json.dumps(dict(c_1=region)))
    sample, = stuff(dam_root, **small)
    assert sample['caption'] == caption


@pytest.mark.parametrize('mask', [
    None, [], 'text', {}, dict(size=[48, 64]), dict(size=[48, 64], counts=''), dict(size=[48, 64], counts='\u20ac'),
    dict(size=[48, 64], counts='o'), dict(size=[48, 64], counts='\ud800'), dict(size=[48, 64], counts=[3072]),
    dict(size=[48, 64], counts='0' * 1000), dict(size=[48, 64, 3], counts='PR3'), dict(size=[True, 64], counts='PR3'),
    dict(size=[-48, -64], counts='PR3'), dict(size=[2**40, 2**40], counts='PR3'), dict(size=[48, 65], counts='PR3'),
    dict(size=['48', '64'], counts='PR3')])
def test_masks_that_are_none_are_bad_samples(dam_root, small, tiny, mask):
    good = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    listing.write_text(json.dumps(dict(c_1=[good, dict(good, mask_rle=mask)])))
    dataset = stuff(dam_root, **small)
    assert len(dataset) == 1 and 'mask' in reasons(dataset)['c_1_1']


def test_broken_texts_and_names_are_bad_samples(dam_root, small, tiny):
    good = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    regions = {'c_1': [good, dict(good, caption='half \ud800')], 'c_2.\u00b2': good, '\udc80': good}
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    listing.write_text(json.dumps(regions))
    dataset = stuff(dam_root, **small)
    assert len(dataset) == 1 and set(reasons(dataset)) == {'c_1_1', 'c_2.\u00b2_0', '\\udc80_0'}
    for text in ('{"c_1": ' + '[' * 100_000, '{"c_1": ' + '[' * 100_000 + ']' * 100_000 + '}', '\0', ''):
        listing.write_text(text)
        with pytest.raises(ValueError, match='annotations.json is not a JSON file.*Download it again'):
            stuff(dam_root, **small)


# Regions in pickles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('split', ['COCOStuff', 'SAV'])
def test_pickles_give_the_same_samples_as_the_listing(dam_root, tmp_path, small, protocol, split):
    before = stuff(dam_root, **small, split=split)
    samples = list(before)
    into_pickles(dam_root, split, protocol)
    after = stuff(dam_root, **small, split=split)
    same(after, Recorded(samples, before))
    assert before.index_digest == after.index_digest


class Recorded(list):
    """Samples that were read before their files changed."""

    def __init__(self, samples, dataset):
        super().__init__(samples)
        self.quarantine = dataset.quarantine


def test_counts_in_bytes_and_a_lone_region_and_more_entries_are_read(dam_root, small):
    expected = stuff(dam_root, **small)
    samples = list(expected)

    def change(regions):
        regions = regions if isinstance(regions, list) else [regions['regions']]
        regions = [dict(region, mask_rle=dict(size=tuple(region['mask_rle']['size']),
                                              counts=region['mask_rle']['counts'].encode()), image=b'\xff\xd8' * 9)
                   for region in regions]
        return regions if len(regions) > 1 else regions[0]

    into_pickles(dam_root, change=change)
    found = stuff(dam_root, **small)
    same(found, Recorded(samples, expected))
    assert found.index_digest == expected.index_digest


def test_pickles_are_excluded_by_image_too(dam_root, small):
    into_pickles(dam_root)
    assert [s['sample_id'] for s in stuff(dam_root, [7], **small)] == ['c_2_0']


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'touch {self.mark}', )


@pytest.mark.parametrize('make', [Attack, lambda mark: np.zeros(3), lambda mark: {1, 2}])
def test_a_pickle_that_names_a_global_stops_the_data_set_and_is_not_run(dam_root, tmp_path, small, make):
    mark = tmp_path / 'ran'
    into_pickles(dam_root, change=lambda regions: [regions, make(mark)])
    with pytest.raises(UnsafePickle, match=r'00\.tar:c_1\.pickle is refused.*Nothing of it was run'):
        stuff(dam_root, **small)
    assert not mark.exists()
    with pytest.raises(ValueError, match='is refused'):
        stuff(dam_root, optional=True, **small)


def test_a_damaged_pickle_is_a_bad_sample(dam_root, small, write_tar, tiny, monkeypatch):
    into_pickles(dam_root)
    path = dam_root / 'COCOStuff' / 'images' / '02.tar'
    region = dict(caption='Good.', mask_rle=tiny.rle(tiny.masks[1]))
    itself = []
    itself += [itself, itself]
    write_tar(path, {'c_3.pickle': pickle.dumps([region])[:-9], 'c_4.pickle': pickle.dumps(itself),
                     'c_5.pickle': pickle.dumps(region), 'c_6.pickle': pickle.dumps('text'), 'c_7.pickle': b'N' * 9000,
                     'c_1.pickle': pickle.dumps(region), 'a\udce9.pickle': pickle.dumps(region)})
    monkeypatch.setattr(describe_anything, 'MAX_PICKLE_BYTES', 8000)
    dataset = stuff(dam_root, **small)
    assert [s['sample_id'] for s in dataset] == ['c_1_0', 'c_1_1', 'c_2_0']
    found = reasons(dataset)
    assert set(found) == {'c_3', 'c_4', 'c_5_0', 'c_6_0', 'c_7', 'c_1 in 02.tar', 'a\\udce9'}
    assert '02.tar:c_3.pickle is refused: it is damaged' in found['c_3'] and 'unfolds' in found['c_4']
    assert 'has regions of that id already' in found['c_1 in 02.tar'] and '9000 bytes' in found['c_7']
    assert all(entry['path'] == str(path) for entry in dataset.quarantine.entries)


def test_the_stored_index_is_opened_without_reading_archives(dam_root, small, monkeypatch):
    into_pickles(dam_root)
    samples = list(first := stuff(dam_root, **small))
    monkeypatch.setattr(describe_anything, 'scan_tar', None)
    same(stuff(dam_root, **small), Recorded(samples, first))


def test_a_new_archive_or_listing_makes_a_new_index(dam_root, small, tiny, write_tar):
    assert len(stuff(dam_root, **small)) == 3
    listing = dam_root / 'COCOStuff' / 'annotations.json'
    content = json.loads(listing.read_text())
    content['c_3'] = dict(caption='New.', mask_rle=tiny.rle(tiny.masks[1]))
    write_tar(dam_root / 'COCOStuff' / 'images' / '02.tar', {'c_3.jpg': tiny.jpeg(tiny.picture)})
    assert len(stuff(dam_root, **small)) == 3
    listing.write_text(json.dumps(content))
    assert [s['sample_id'] for s in stuff(dam_root, **small)] == ['c_1_0', 'c_1_1', 'c_2_0', 'c_3_0']


def test_a_folder_that_may_not_be_listed_is_named_with_the_remedy(dam_root, small, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('COCOStuff/images'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match=r'make it readable.*COCOStuff/images'):
        stuff(dam_root, **small)


def test_archives_that_cannot_be_counted_or_lead_out_stop_the_data_set(dam_root, small):
    path = dam_root / 'COCOStuff' / 'images' / '01.tar'
    whole = path.read_bytes()
    path.write_bytes(whole[1200:])  # nothing of it is a tar
    with pytest.raises(ValueError, match=r'01\.tar is not a whole uncompressed tar archive'):
        stuff(dam_root, **small)
    path.write_bytes(whole)
    into_pickles(dam_root)  # without a listing
    whole = path.read_bytes()
    path.write_bytes(whole[:-11_000])
    with pytest.raises(ValueError, match=r'01\.tar is not a whole uncompressed tar archive'):
        stuff(dam_root, **small)
    path.write_bytes(whole + bytes(20_480))  # that may be as it was written
    dataset = stuff(dam_root, **small)
    assert len(dataset) == 3 and [entry['sample_id'] for entry in dataset.quarantine.entries] == ['01.tar']
    with tarfile.open(path, 'w') as archive:
        link = tarfile.TarInfo('c_2.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    with pytest.raises(ValueError, match=r'01\.tar is refused.*outside'):
        stuff(dam_root, **small)
