"""Several objects of a pair of the SA-V release: those that both frames show."""

import json

import numpy as np
import pytest
import torch

from dual_loop.datasets import SAVPairDataset, collate_samples

FRAMES = 12  # annotated ones


@pytest.fixture
def crowded(tmp_path, tiny, write_video):
    """Four objects, one below the other; the last but one is visible at few frames, the last in no pair.

    The folder, the frames at which each is visible, the codes and their file.
    """
    def code(k, t, shown):
        mask = np.zeros((48, 64), dtype=bool)
        mask[12 * k:12 * k + 8, 2 * t:2 * t + 4] = t in shown
        return tiny.rle(mask)

    shown = [range(FRAMES), range(FRAMES), range(0, FRAMES, 3), [0]]
    codes = [[code(k, t, each) for k, each in enumerate(shown)] for t in range(FRAMES)]
    file = tmp_path / 'sav_000001_manual.json'
    file.write_text(json.dumps(dict(masklet=codes)))
    write_video(tmp_path / 'sav_000001.mp4', 4 * FRAMES)
    return tmp_path, shown, codes, file


def rows_of(masks) -> list[int]:
    """Numbers of the objects of (n, G, G) masks, by the rows in which they lie."""
    return [round(mask.nonzero()[:, 0].min().item() * 48 / 64 / 12) for mask in masks]


def test_several_objects_of_a_pair_are_those_that_both_frames_show(crowded, small):
    release, shown, *_ = crowded
    seen = set()
    alone = SAVPairDataset(release, gap=(3, 3), repeats=20, **small)
    for wanted in (2, 3):
        dataset = SAVPairDataset(release, gap=(3, 3), repeats=20, num_objects=wanted, **small)
        for index in range(len(dataset)):
            sample, single = dataset[index], alone[index]
            numbers = rows_of(sample['masks1'])
            assert numbers == rows_of(sample['masks2']) and len(set(numbers)) == len(numbers) <= wanted
            assert numbers[0] == int(sample['sample_id'][-1]) and sample['caption'] == [None] * len(numbers)
            for suffix in '12':  # the first object, its frames and its pictures are as without companions
                assert torch.equal(sample[f'masks{suffix}'][0], single[f'masks{suffix}'])
                assert torch.equal(sample[f'g_pixel_values{suffix}'], single[f'g_pixel_values{suffix}'])
                frame = int(sample[f'image_key{suffix}'].split(':')[-1]) // 4
                left = [round(mask.nonzero()[:, 1].min().item() / 2) for mask in sample[f'masks{suffix}']]
                assert left == [frame] * len(numbers) and all(frame in shown[number] for number in numbers)
            seen.add(tuple(numbers))
            again = dataset[index]
            assert torch.equal(again['masks1'], sample['masks1'])
    assert {(0, 1), (0, 1, 2), (0, 2, 1), (1, 0), (2, 1)} <= seen and not any(3 in numbers for numbers in seen)
    batch = collate_samples([dataset[0], dataset[1]])
    assert len(batch['captions']) == len(batch['masks2']) == sum(len(dataset[index]['caption']) for index in (0, 1))
    assert batch['sample_ids'][:2] == [f'{dataset.sample_id(0)}#{k}' for k in (0, 1)]


def test_a_companion_that_went_bad_is_recorded_and_left_out(crowded, small):
    release, _, codes, file = crowded
    dataset = SAVPairDataset(release, gap=(1, 3), num_objects=4, **small)
    for frame in codes:
        frame[1] = None
    file.write_text(json.dumps(dict(masklet=codes)))
    sample = dataset.load(0, 0)
    assert 1 not in rows_of(sample['masks1']) and rows_of(sample['masks1'])[0] == 0
    entry, = dataset.quarantine.entries
    assert entry['sample_id'].endswith('manual_1') and 'object 1 has gone from annotated frame' in entry['reason']
