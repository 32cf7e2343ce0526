import json
import os

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch.utils.data import DataLoader

from dual_loop.datasets import BadSample, MissingData, SAVPairDataset, TooManyBadSamples, collate_samples, sav
from dual_loop.datasets.contract import violations
from dual_loop.datasets.masks import area_mask
from dual_loop.datasets.sav_masklets import from_text, pairs, read_masklets, to_text, visible_frames


def test_pairs_in_sorted_order(sav_root, small, tiny):
    dataset = SAVPairDataset(sav_root, **small)
    samples = list(dataset)
    assert [s['sample_id'] for s in samples] == ['a/masklet_data_00001', 'b/masklet_data_00000', 'masklet_data_00002']
    sample = samples[1]
    pictures = ('pixel_values', 'g_pixel_values', 'prompt_masks', 'masks', 'image_key')
    words = {'caption', 'source', 'sample_id', 'describes'}
    assert set(sample) == {f'{key}{frame}' for key in pictures for frame in (1, 2)} | words
    assert sample['caption'] is None and sample['source'] == 'sav'
    assert sample['pixel_values1'].shape == (3, 56, 56) and sample['g_pixel_values2'].shape == (3, 64, 64)
    for frame in (1, 2):
        # At twice the height's grid: 48 rows become 64, so compare areas as shares.
        share = sample[f'masks{frame}'].float().mean().item()
        assert abs(share - tiny.masks[frame].mean()) < 0.01
    assert not torch.equal(sample['g_pixel_values1'], sample['g_pixel_values2'])
    assert sample['image_key1'] != sample['image_key2']
    assert SAVPairDataset(sav_root, num_objects=3, **small)[0]['masks2'].shape == (1, 64, 64)


@pytest.mark.parametrize('frame_type, scale', [('float32', 1), ('float64', 1), ('float32', 255), ('int64', 1),
                                               ('float16', 1)])
@pytest.mark.parametrize('mask_value, mask_type', [(255, 'float32'), (1, 'uint8'), (1, 'bool'), (255, 'int16')])
def test_any_number_type(tmp_path, small, tiny, frame_type, scale, mask_value, mask_type):
    def write(name, frame, mask):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / 'masklet_data_0.npz', frame1=frame, mask1=mask, frame2=frame, mask2=mask)
        return SAVPairDataset(tmp_path / name, **small)[0]

    expected = write('plain', tiny.picture, tiny.masks[1] * np.uint8(255))
    sample = write('other', (tiny.picture / scale).astype(frame_type), (tiny.masks[1] * mask_value).astype(mask_type))
    for key in ('g_pixel_values1', 'pixel_values2', 'masks1', 'prompt_masks2'):
        assert torch.equal(sample[key], expected[key]), key


def good(tiny):
    mask = tiny.masks[1] * np.uint8(255)
    return dict(frame1=tiny.picture, mask1=mask, frame2=tiny.picture, mask2=mask)


@pytest.mark.parametrize('change, reason', [
    (dict(frame1=None), 'arrays frame1 are missing'),
    (dict(frame1=np.zeros((48, 64))), 'frame1 has shape'),
    (dict(frame2=np.full((48, 64, 3), np.nan)), 'frame2 has values outside'),
    (dict(frame2=np.full((48, 64, 3), 300.0)), 'frame2 has values outside'),
    (dict(mask2=np.ones((24, 32))), 'mask2 has shape'),
    (dict(mask2=np.zeros((48, 64))), 'the mask is empty'),
    (dict(mask1=np.array([[None]])), 'cannot be read as an npz file'),
])
def test_wrong_arrays(sav_root, small, tiny, change, reason):
    arrays = {key: value for key, value in (good(tiny) | change).items() if value is not None}
    np.savez(sav_root / 'a' / 'masklet_data_00001.npz', **arrays)
    dataset = SAVPairDataset(sav_root, **small)
    assert dataset[0]['sample_id'] != 'a/masklet_data_00001'
    entry, = dataset.quarantine.entries
    assert reason in entry['reason'] and entry['path'].endswith('masklet_data_00001.npz')


def test_cut_files(sav_root, small):
    file = sav_root / 'a' / 'masklet_data_00001.npz'
    whole = file.read_bytes()
    for length in (0, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        dataset = SAVPairDataset(sav_root, **small)
        assert dataset[0]['sample_id'] != 'a/masklet_data_00001' and dataset.quarantine.count == 1
    # A flipped byte inside an array is found by the archive's checksum.
    file.write_bytes(whole[:600] + bytes([whole[600] ^ 255]) + whole[601:])
    dataset = SAVPairDataset(sav_root, **small)
    assert dataset[0]['sample_id'] != 'a/masklet_data_00001' and dataset.quarantine.count == 1


# The release ----------------------------------------------------------------------------------------------------------

FRAMES = 30  # annotated ones
SHOWN = {0: range(30), 1: [2, 3, 4, 5, 20, 21], 2: [7], 3: [], 4: [1, 2]}  # where each object is visible


def masklets(tiny, shown=SHOWN):
    """Boxes that move two pixels from one annotated frame to the next, so that a mask says its frame."""
    def code(k, t):
        mask = np.zeros((48, 64), dtype=bool)
        mask[10:30, 2 * t:2 * t + 4] = t in shown[k]
        return tiny.rle(mask)

    return [[code(k, t) for k in shown] for t in range(FRAMES)]


@pytest.fixture
def release(tmp_path, tiny, write_video):
    """One video with five objects drawn by hand, and automatic masks of a sixth one."""
    folder = tmp_path / 'sav' / 'sav_train' / 'sav_000'
    folder.mkdir(parents=True)
    write_video(folder / 'sav_000001.mp4', 4 * FRAMES)
    (folder / 'sav_000001_manual.json').write_text(json.dumps(dict(masklet=masklets(tiny))))
    (folder / 'sav_000001_auto.json').write_text(json.dumps(dict(masklet=masklets(tiny, {0: range(30)}))))
    return tmp_path / 'sav'


def annotated_frames(sample):
    """The annotated frames of a sample, as its masks say."""
    return [round(sample[f'masks{k}'].nonzero()[:, 1].min().item() / 2) for k in (1, 2)]


def test_masks_belong_to_every_fourth_frame(release, small, shown_number):
    dataset = SAVPairDataset(release, gap=(2, 9), repeats=20, **small)
    seen = set()
    for sample in dataset:
        frames = annotated_frames(sample)
        assert [4 * t for t in frames] == [shown_number(sample[f'g_pixel_values{k}']) for k in (1, 2)]
        assert [4 * t for t in frames] == [int(sample[f'image_key{k}'].split(':')[-1]) for k in (1, 2)]
        number = int(sample['sample_id'][-1])
        assert set(frames) <= set(SHOWN[number]) and 2 <= abs(frames[0] - frames[1]) <= 9
        assert not list(violations(sample, dataset))
        seen.add((number, *frames))
    first = [pair for pair in seen if pair[0] == 0]
    assert len(first) > 15, 'repeats show other pairs'
    assert 0.2 < np.mean([one < two for _, one, two in first]) < 0.8, 'either frame may come first'
    # Object 1 is visible in 2..5 and 20, 21, so only these fit the gap.
    assert {pair[1:] for pair in seen if pair[0] == 1} == {(2, 4), (2, 5), (3, 5), (4, 2), (5, 2), (5, 3)}


@pytest.mark.parametrize('layout', ['release', 'npz'])
def test_frames_in_original_size_are_those_of_the_sample(release, sav_root, small, layout):
    # Both fixtures lie in the same folder.
    dataset = SAVPairDataset(sav_root.parent, layout=layout, **small)
    for row in range(len(dataset.index)):
        sample, frames = dataset[row], list(dataset.frames(row))
        assert len(frames) == 2
        for number, (image, mask) in enumerate(frames, 1):
            assert image.shape[1:] == mask.shape
            made = dataset.pixels(image) | dataset.regions(mask)
            assert all(torch.equal(value, sample[f'{key}{number}']) for key, value in made.items())


@pytest.mark.parametrize('layout', ['release', 'npz'])
def test_without_pairs_the_first_frame_stands_for_both(release, sav_root, small, layout, monkeypatch):
    settings = dict(layout=layout, repeats=3, **small)
    both, alone = (SAVPairDataset(sav_root.parent, **settings, **more) for more in ({}, dict(pairs=False)))
    read, original = [], sav.read_frames
    monkeypatch.setattr(sav, 'read_frames', lambda *args: read.append(len(args[1])) or original(*args))
    assert len(alone) == len(both) and alone.index_digest == both.index_digest
    for pair, single in zip(both, alone):
        assert not list(violations(single, alone))
        for key in ('pixel_values', 'g_pixel_values', 'prompt_masks', 'masks'):
            assert torch.equal(single[key], pair[f'{key}1'])
        assert single['image_key'] == pair['image_key1'] and single['sample_id'] == pair['sample_id']
        assert single['caption'] is None and not {key for key in single if key[-1] in '12'}
    assert set(read) == ({1, 2} if layout == 'release' else set()) and read.count(1) == read.count(2)
    batch = collate_samples(list(alone))
    assert torch.equal(batch['image1'], batch['image2']) and torch.equal(batch['masks1'], batch['masks2'])
    assert len(list(alone.frames(0))) == 1
    several = SAVPairDataset(sav_root.parent, num_objects=3, pairs=False, **settings)[0]
    assert several['masks'].shape == (1, 64, 64) and several['caption'] == [None]


def test_pairs_do_not_depend_on_process_or_order(release, small):
    def keys(dataset):
        return [sample['image_key1'] + sample['image_key2'] for sample in dataset]

    settings = dict(annotations='both', repeats=4, **small)
    expected = keys(SAVPairDataset(release, **settings))
    again = SAVPairDataset(release, **settings)
    backwards = [again[index] for index in reversed(range(len(again)))]
    assert keys(backwards)[::-1] == expected
    assert keys(DataLoader(again, batch_size=None, num_workers=2)) == expected
    assert keys(SAVPairDataset(release, seed=1, **settings)) != expected


def test_objects_with_a_fitting_pair_are_listed(release, small):
    ids = 'sav_train/sav_000/sav_000001_{}'.format

    def listed(**settings):
        dataset = SAVPairDataset(release, **settings, **small)
        assert dataset.quarantine.count == 0
        return [dataset.sample_id(row) for row in range(len(dataset))]

    assert listed() == [ids('manual_0'), ids('manual_1')]
    assert listed(gap=[1, 1]) == [ids('manual_0'), ids('manual_1'), ids('manual_4')]
    assert listed(gap=(19, 29)) == [ids('manual_0'), ids('manual_1')] and listed(gap=(20, 29)) == [ids('manual_0')]
    assert listed(annotations='auto') == [ids('auto_0')]
    assert listed(annotations='both') == [ids('auto_0'), ids('manual_0'), ids('manual_1')]
    assert listed(annotations='both', max_samples=2) == [ids('auto_0'), ids('manual_0')]


def test_sizes_are_those_of_the_first_visible_mask(release, small):
    dataset = SAVPairDataset(release, gap=(1, 5), **small)
    columns = ('box_width', 'box_height', 'area', 'image_width', 'image_height')
    assert [[dataset.index[name][row] for name in columns] for row in range(3)] == 3 * [[4, 20, 80, 64, 48]]
    assert len(dataset.modality_length) == 3


@pytest.mark.parametrize('nothing', [None, {}, dict(size=[48, 64], counts=''), dict(size=[48, 64], counts=[]),
                                     dict(size=[48, 64], counts=[48 * 64]), dict(size=[48, 64], counts='PP3')])
def test_all_ways_to_say_not_visible(release, small, tiny, nothing):
    codes = masklets(tiny)
    assert codes[0][3] == dict(size=[48, 64], counts='PP3'), 'what pycocotools writes for an empty mask'
    for t in range(FRAMES):
        codes[t][0] = codes[t][0] if t in (4, 11) else nothing
    (release / 'sav_train' / 'sav_000' / 'sav_000001_manual.json').write_text(json.dumps(dict(masklet=codes)))
    dataset = SAVPairDataset(release, repeats=6, **small)
    assert {tuple(sorted(annotated_frames(dataset[index]))) for index in range(0, len(dataset), 2)} == {(4, 11)}


def test_all_pairs_are_listed():
    rng = np.random.default_rng(0)
    for length, low, high in ((1, 1, 5), (8, 1, 1), (30, 3, 7), (121, 3, 24)):
        visible = rng.random(length) < 0.6
        expected = [[a, b] for a in range(length) for b in range(length)
                    if visible[a] and visible[b] and low <= abs(a - b) <= high]
        assert pairs(visible, (low, high)).tolist() == expected
        text = to_text(visible)
        assert np.flatnonzero(from_text(text)).tolist() == np.flatnonzero(visible).tolist()
        assert len(text) <= length / 4 + 2


def test_videos_are_not_opened_for_the_index(release, small):
    (release / 'sav_train' / 'sav_000' / 'sav_000001.mp4').write_bytes(b'no video')
    dataset = SAVPairDataset(release, **small)
    assert len(dataset) == 2
    with pytest.raises(BadSample, match='cannot be opened as a video'):
        dataset.load(0, 0)


@pytest.mark.parametrize('content, reason', [
    (b'', 'zero bytes'), (b'{', 'not a JSON file'), (b'\xff', 'not a JSON file'), (b'[]', 'has no masklet'),
    (b'{"masklet": 3}', 'has no masklet'), (b'{"masklet": [3]}', 'has no masklet'),
    (b'{"masklet": [[null], []]}', 'another number of objects'), (b'{"masklet": [["x"]]}', 'a mask that is not'),
    (b'{"masklet": [[{"counts": "0"}]]}', 'a mask that is not'),
    (b'{"masklet": [[{"counts": "0", "size": [1]}]]}', 'a mask that is not'), ('video', 'the video is missing'),
])
def test_bad_annotation_files_are_left_out(release, small, content, reason):
    folder = release / 'sav_train' / 'sav_000'
    if content == 'video':
        content = (folder / 'sav_000001_manual.json').read_bytes()
    else:
        (folder / 'sav_000002.mp4').touch()
    (folder / 'sav_000002_manual.json').write_bytes(content)
    for _ in range(2):  # made, then found again
        dataset = SAVPairDataset(release, **small)
        entry, = dataset.quarantine.entries
        assert len(dataset) == 2 and reason in entry['reason']
        of_an_object = '_0' * reason.startswith('a mask')
        assert entry['sample_id'] == 'sav_train/sav_000/sav_000002_manual' + of_an_object
        assert 'sav_000002' in entry['path']


def test_a_bad_object_spares_the_others(release, small, tiny):
    file = release / 'sav_train' / 'sav_000' / 'sav_000001_manual.json'
    codes = masklets(tiny)
    codes[0][0]['counts'] = 'a bad code of many characters'
    codes[6][1]['counts'] = '\x10'
    file.write_text(json.dumps(dict(masklet=codes)))
    dataset = SAVPairDataset(release, gap=(1, 1), **small)
    assert [dataset.sample_id(row)[-8:] for row in range(len(dataset))] == ['manual_4']
    assert [entry['sample_id'][-8:] for entry in dataset.quarantine.entries] == ['manual_0', 'manual_1']


def test_frames_must_have_the_size_of_their_masks(release, small, write_video):
    video = write_video(release / 'sav_train' / 'sav_000' / 'sav_000001.mp4', 4 * FRAMES, height=64, width=48)
    dataset = SAVPairDataset(release, **small)
    with pytest.raises(BadSample, match=r'height and width \[64, 48\], their masks \[48, 64\]') as caught:
        dataset.load(0, 0)
    assert caught.value.path == video


def test_videos_that_end_early(release, small, write_video):
    video = write_video(release / 'sav_train' / 'sav_000' / 'sav_000001.mp4', 4)
    with pytest.raises(BadSample, match='has no frame') as caught:
        SAVPairDataset(release, **small).load(0, 0)
    assert caught.value.path == video


@pytest.mark.parametrize('change', [lambda codes: codes[:1], lambda codes: [each[:0] for each in codes],
                                    lambda codes: [[None] * 5 for _ in codes]])
def test_annotations_that_changed_behind_the_index(release, small, tiny, change):
    dataset = SAVPairDataset(release, **small)
    file = release / 'sav_train' / 'sav_000' / 'sav_000001_manual.json'
    file.write_text(json.dumps(dict(masklet=change(masklets(tiny)))))
    with pytest.raises(BadSample, match='object 0 has gone from annotated frame') as caught:
        dataset.load(0, 0)
    assert caught.value.path == file


def test_an_annotation_file_is_read_once_in_a_row(release, small, monkeypatch):
    dataset = SAVPairDataset(release, annotations='both', **small)
    read = []
    monkeypatch.setattr(sav, 'read_masklets', lambda path: read.append(path.stem) or read_masklets(path))
    for row in (1, 2, 2, 0, 1):
        dataset.load(row, row)
    assert read == ['sav_000001_manual', 'sav_000001_auto', 'sav_000001_manual']


def test_layout_is_recognised_or_chosen(release, sav_root, small):
    # Both fixtures lie in the same folder.
    assert release == sav_root
    with pytest.raises(ValueError, match=f"{release} holds both .* set layout='npz' or layout='release'"):
        SAVPairDataset(release, **small)
    assert len(SAVPairDataset(release, layout='npz', **small)) == 3
    assert len(SAVPairDataset(release, layout='release', **small)) == 2
    assert len(SAVPairDataset(release / 'sav_train', **small)) == 2
    with pytest.raises(MissingData, match=rf'{release}/sav_train: no masklet_data_\*.npz. Put'):
        SAVPairDataset(release / 'sav_train', layout='npz', **small)


def test_an_empty_folder_and_the_wrong_annotations(release, small, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(MissingData, match=r'empty: no sav_\*_manual.json or masklet_data_\*.npz. Put the SA-V'):
        SAVPairDataset(tmp_path / 'empty', **small)
    assert len(SAVPairDataset(tmp_path / 'empty', optional=True, **small)) == 0
    (release / 'sav_train' / 'sav_000' / 'sav_000001_auto.json').unlink()
    with pytest.raises(MissingData, match=r'sav: no sav_\*_auto.json, but .*000001_manual.json: set annotations'):
        SAVPairDataset(release, annotations='auto', layout='release', **small)


@pytest.mark.parametrize('wrong', [dict(layout='mp4'), dict(annotations='automatic'), dict(gap=(0, 3)),
                                   dict(gap=(4, 3)), dict(gap=(1, 2.5)), dict(gap=(1, 2, 3))])
def test_arguments_that_make_no_sense(tmp_path, wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} must be'):
        SAVPairDataset(tmp_path, **wrong)


def test_several_objects_and_a_batch(release, small):
    dataset = SAVPairDataset(release, num_objects=3, repeats=2, **small)
    samples = list(dataset)
    counts = [len(sample['caption']) for sample in samples]
    assert all(sample['masks1'].shape == (count, 64, 64) for sample, count in zip(samples, counts))
    batch = collate_samples(samples)
    assert batch['masks2'].shape == (sum(counts), 64, 64) and batch['image1'].tolist() != batch['image2'].tolist()


def test_real_annotations(real_samples, tmp_path, write_video, shown_number):
    content = json.loads((real_samples / 'sav_raw' / 'sav_000001_manual.json').read_text())
    path = tmp_path / 'sav_000001_manual.json'
    # By pycocotools alone.
    areas = np.array([[coco.area(code) for code in codes] for codes in content['masklet']])
    for k in range(5):
        assert np.array_equal(visible_frames(content['masklet'], k, path), areas[:, k] > 0)
    content['masklet'] = content['masklet'][:10]
    path.write_text(json.dumps(content))
    write_video(tmp_path / 'sav_000001.mp4', 37, height=848, width=480)
    dataset = SAVPairDataset(tmp_path, gap=(1, 9), image_size=56, grounding_size=256)
    assert [dataset.sample_id(row)[-1] for row in range(4)] == list('0124'), 'object 3 appears later'
    for index, sample in enumerate(dataset):
        number = int(sample['sample_id'][-1])
        box = coco.toBbox(content['masklet'][0][number])
        row = dataset.row(index)
        assert [dataset.index['box_width'][row], dataset.index['box_height'][row]] == box[2:].tolist()
        for k in (1, 2):
            shown = shown_number(sample[f'g_pixel_values{k}'])
            mask = coco.decode(content['masklet'][shown // 4][number]) > 0
            assert shown % 4 == 0 and torch.equal(sample[f'masks{k}'], torch.from_numpy(area_mask(mask, 256)))


def test_one_odd_mask_costs_its_object(release, small, tiny):
    file = release / 'sav_train' / 'sav_000' / 'sav_000001_manual.json'
    for odd in ('x', dict(counts='0'), dict(size=[48, True], counts='0'), dict(size=[48, 10**30], counts='0'), [[[]]]):
        codes = masklets(tiny)
        codes[5][1] = odd
        file.write_text(json.dumps(dict(masklet=codes)))
        dataset = SAVPairDataset(release, **small)
        assert [dataset.sample_id(row)[-8:] for row in range(len(dataset))] == ['manual_0']
        entry, = dataset.quarantine.entries
        assert entry['sample_id'].endswith('manual_1') and 'that of object 1 at annotated frame 5' in entry['reason']


def test_the_annotation_file_of_another_video(release, small, tiny, write_video):
    folder = release / 'sav_train' / 'sav_000'
    write_video(folder / 'sav_000002.mp4', 4)
    for number, video in ((1, 'sav_000001'), (2, 'sav_000001')):
        (folder / f'sav_00000{number}_manual.json').write_text(json.dumps(dict(video_id=video, masklet=masklets(tiny))))
    dataset = SAVPairDataset(release, **small)
    assert len(dataset) == 2 and dataset.path(1).name == 'sav_000001.mp4'
    entry, = dataset.quarantine.entries
    assert "of the video 'sav_000001' by its content, of sav_000002 by its name" in entry['reason']


@pytest.mark.parametrize('layout', ['npz', 'release'])
def test_all_bad_and_names_that_are_no_utf8(release, sav_root, small, layout):
    for file in [*sav_root.rglob('masklet_data_*.npz'), *release.rglob('sav_*.json')]:
        os.rename(os.fsencode(file), os.fsencode(file.with_suffix('')) + b'\xe9_manual' + os.fsencode(file.suffix))
    with pytest.raises(TooManyBadSamples, match='of sav are bad, so that nothing is left.*not UTF-8: rename the file'):
        SAVPairDataset(sav_root, layout=layout, optional=True, **small)
