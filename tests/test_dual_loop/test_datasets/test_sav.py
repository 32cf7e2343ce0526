import numpy as np
import pytest
import torch

from dual_loop.datasets import SAVPairDataset
from dual_loop.datasets.sav import find_files


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


def test_files_are_found_at_any_depth_and_behind_links(tmp_path):
    names = [f'{folder}masklet_data_{number}.npz' for folder in ('b/c/', 'a/', 'link/', '') for number in (3, 1, 2)]
    for name in names:
        file = tmp_path / 'root' / name.replace('link/', '../elsewhere/')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / 'root' / 'masklet_data_9.npy').touch()
    (tmp_path / 'root' / 'link').symlink_to(tmp_path / 'elsewhere')
    assert find_files(tmp_path / 'root', 'masklet_data_*.npz') == sorted(names)


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
