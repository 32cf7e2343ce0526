import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dual_loop.datasets import (
    MissingData,
    RefCOCODataset,
    SA1BDataset,
    SAVPairDataset,
    TooManyBadSamples,
    collate_samples,
    set_work_dir,
)


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if torch.is_tensor(value) else value == second[key], key


def sa1b(folder, pixels, *masks, encode):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'sa_1.jpg').write_bytes(pixels)
    annotations = [dict(id=k, segmentation=encode(mask)) for k, mask in enumerate(masks)]
    (folder / 'sa_1.json').write_text(json.dumps(dict(annotations=annotations)))
    return folder


def test_both_pictures_come_straight_from_the_original(tmp_path, tiny):
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, (300, 431, 3), dtype=np.uint8)
    root = sa1b(tmp_path / 'd', tiny.jpeg(original, subsampling=0), np.ones((300, 431)), encode=tiny.rle)
    decoded = Image.open(root / 'sa_1.jpg')
    sample = SA1BDataset(root, image_size=112, grounding_size=128)[0]

    def resized(size):
        return np.asarray(decoded.resize((size, size), Image.BICUBIC)).astype(float)

    vision = sample['pixel_values'].permute(1, 2, 0).numpy() * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)
    assert np.abs(vision * 255 - resized(112)).max() <= 1.01
    assert np.abs(sample['g_pixel_values'].permute(1, 2, 0).numpy().astype(float) - resized(128)).max() <= 1
    # Resizing twice would differ by far more on noise, so neither was made from the other.
    twice = np.asarray(Image.fromarray(resized(128).astype(np.uint8)).resize((112, 112), Image.BICUBIC)).astype(float)
    assert np.abs(vision * 255 - twice).max() > 10
    assert (sample['pixel_values'].dtype, sample['g_pixel_values'].dtype) == (torch.float32, torch.uint8)
    assert sample['prompt_masks'].shape == (4, 4), 'image_size // 28 cells by default'


def test_length_and_repeats(sa1b_root, small):
    def rows(**more):
        dataset = SA1BDataset(sa1b_root, **small, **more)
        ids = [dataset.sample_id(dataset.row(index)) for index in range(len(dataset))]
        assert len(dataset.modality_length) == len(ids)
        return ids

    once = rows()
    assert once == ['sa_1_11', 'sa_1_12', 'sa_2_11', 'sa_2_12']
    assert rows(repeats=3) == once * 3
    assert rows(max_samples=3, repeats=2) == once[:3] * 2
    assert rows(max_samples=99) == once
    half = rows(repeats=2.5)
    assert half[:8] == once * 2 and len(set(half[8:])) == len(half[8:]) == 2
    assert half == rows(repeats=2.5)
    assert len({tuple(rows(repeats=0.5, seed=seed)) for seed in range(20)}) > 1
    assert len(rows(repeats=0.01)) == 1


@pytest.mark.parametrize('wrong', [dict(repeats=0), dict(repeats=-1), dict(repeats=float('nan')), dict(max_samples=0),
                                   dict(image_size=0), dict(num_objects=0)])
def test_senseless_arguments(sa1b_root, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SA1BDataset(sa1b_root, **wrong)


def test_index_out_of_range(sa1b_root, small):
    dataset = SA1BDataset(sa1b_root, **small)
    for index in (4, -1):
        with pytest.raises(IndexError):
            dataset[index]
    assert len(list(dataset)) == 4


def test_missing_data(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('dual_loop.datasets.indexed.print_log', lambda message, *_: said.append(message))
    for dataset in (SAVPairDataset, SA1BDataset, RefCOCODataset):
        with pytest.raises(MissingData, match='nowhere.*data_root.*optional=True'):
            dataset(tmp_path / 'nowhere')
        empty = dataset(tmp_path / 'nowhere', optional=True, repeats=1.5)
        assert len(empty) == 0 == len(empty.modality_length)
    assert len(said) == 3 and all('nowhere' in message for message in said)
    (tmp_path / 'nowhere').mkdir()
    with pytest.raises(MissingData, match='no samples in .*nowhere'):
        SAVPairDataset(tmp_path / 'nowhere')


def test_prepare_runs_once_before_reading(tmp_path, sa1b_root, small):
    calls = []

    def move(target):
        calls.append(target)
        os.rename(sa1b_root, target)

    dataset = SA1BDataset(tmp_path / 'later', prepare=dict(type=move, target=tmp_path / 'later'), **small)
    assert len(dataset) == 4 and calls == [tmp_path / 'later']
    SA1BDataset(tmp_path / 'later', prepare=lambda: calls.append('again'), **small)
    assert calls[1:] == ['again']
    SA1BDataset(tmp_path / 'later', prepare=dict(type='os.makedirs', name=tmp_path / 'made'), **small)
    assert (tmp_path / 'made').is_dir()
    with pytest.raises(ValueError, match='os.nothing'):
        SA1BDataset(tmp_path / 'later', prepare=dict(type='os.nothing'), **small)


@pytest.mark.parametrize('break_it, reason', [
    (lambda file, tiny: file.write_bytes(b''), 'zero bytes'),
    (lambda file, tiny: file.unlink(), 'No such file'),
    (lambda file, tiny: file.write_bytes(tiny.jpeg(tiny.picture[:20])), 'belongs to an image'),
    (lambda file, tiny: file.write_bytes(tiny.jpeg(tiny.picture)[:-200]), 'truncated'),
])
def test_bad_sample_is_replaced_written_down_and_counted(sa1b_root, small, tiny, tmp_path, break_it, reason):
    break_it(sa1b_root / 'sa_000000' / 'sa_2.jpg', tiny)
    dataset = SA1BDataset(sa1b_root, **small)
    set_work_dir(dataset, tmp_path / 'work')
    for index in (3, 3, 0):
        substitute = dataset[index]
        assert substitute['sample_id'].startswith('sa_1_')
        same(substitute, SA1BDataset(sa1b_root, **small)[index])
    entries = [json.loads(line) for line in (tmp_path / 'work' / 'bad_samples.jsonl').read_text().splitlines()]
    assert entries[0]['sample_id'] == 'sa_2_12' and reason in entries[0]['reason']
    assert entries[0]['source'] == 'sa1b' and 'sa_000000/sa_2.j' in entries[0]['path']
    assert dataset.quarantine.count == len(entries) == len({entry['sample_id'] for entry in entries})


def test_nothing_but_bad_samples_stops(sa1b_root, small):
    for number in (1, 2):
        (sa1b_root / 'sa_000000' / f'sa_{number}.jpg').write_bytes(b'')
    with pytest.raises(TooManyBadSamples, match='4 of 4 samples of sa1b are bad, so that nothing is left.*zero bytes'):
        SA1BDataset(sa1b_root, **small)[0]


def test_good_samples_between_bad_ones_end_a_row(sa1b_root, small):
    (sa1b_root / 'sa_000000' / 'sa_2.jpg').write_bytes(b'')
    dataset = SA1BDataset(sa1b_root, **small)
    for _ in range(110):
        assert dataset[3]['sample_id'].startswith('sa_1_')
    assert dataset.quarantine.in_a_row == 0


def test_empty_mask_is_bad_and_tiny_ones_are_not(tmp_path, tiny):
    empty, dot = np.zeros((48, 64)), np.zeros((48, 64))
    dot[47, 63] = 1
    root = sa1b(tmp_path / 'd', tiny.jpeg(tiny.picture), empty, dot, encode=tiny.rle)
    dataset = SA1BDataset(root, image_size=56, grounding_size=8)
    for index in range(2):
        sample = dataset[index]
        assert sample['sample_id'] == 'sa_1_1'
        assert sample['masks'].nonzero().tolist() == [[7, 7]]
        assert sample['prompt_masks'].nonzero().tolist() == [[1, 1]]
    assert dataset.quarantine.count == 1


def test_one_pixel_picture(tmp_path, tiny, small):
    root = sa1b(tmp_path / 'd', tiny.jpeg(np.full((1, 1, 3), 200, np.uint8)), np.ones((1, 1)), encode=tiny.rle)
    sample = SA1BDataset(root, **small)[0]
    assert sample['masks'].all() and sample['prompt_masks'].all()
    assert (sample['g_pixel_values'] == sample['g_pixel_values'][0, 0, 0]).all()


def test_companions_are_other_objects_of_the_image(refcoco_root, small):
    dataset = RefCOCODataset(refcoco_root, num_objects=2, repeats=20, **small)
    single = {s['caption']: s for s in RefCOCODataset(refcoco_root, **small)}
    seen = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        own, other = sample['caption']
        assert own == single[own]['caption'] and {own, other} & {'right box'} and own != other
        for position, caption in enumerate(sample['caption']):
            assert torch.equal(sample['masks'][position], single[caption]['masks'])
            assert torch.equal(sample['prompt_masks'][position], single[caption]['prompt_masks'])
        seen.add((own, other))
    assert seen == {('left box', 'right box'), ('tall box', 'right box'), ('right box', 'left box'),
                    ('right box', 'tall box')}
    many = RefCOCODataset(refcoco_root, num_objects=5, **small)[0]
    assert many['masks'].shape == (2, 64, 64) and many['prompt_masks'].shape == (2, 8, 8)


def test_bad_companion_is_left_out(tmp_path, tiny, small):
    root = sa1b(tmp_path / 'd', tiny.jpeg(tiny.picture), tiny.masks[1], np.zeros((48, 64)), tiny.masks[2],
                encode=tiny.rle)
    dataset = SA1BDataset(root, num_objects=2, **small)
    for index in (0, 2):
        masks = dataset[index]['masks']
        assert masks.shape[0] == 2 and masks.any(-1).any(-1).all()
    assert dataset.quarantine.count <= 1


def test_same_samples_in_any_instance_process_and_order(refcoco_root, small):
    def make():
        return RefCOCODataset(refcoco_root, num_objects=2, repeats=2.5, seed=3, **small)

    dataset = make()
    expected = [collate_samples([dataset[index]]) for index in range(len(dataset))]
    copy = pickle.loads(pickle.dumps(dataset))
    for index in reversed(range(len(dataset))):
        same(expected[index], collate_samples([make()[index]]))
        same(expected[index], collate_samples([copy[index]]))
    for context, workers in (('fork', 2), ('spawn', 1)):
        loader = DataLoader(dataset, num_workers=workers, collate_fn=collate_samples, multiprocessing_context=context)
        batches = list(loader)
        assert len(batches) == len(expected)
        for batch, wanted in zip(batches, expected):
            same(batch, wanted)


def test_modality_length(refcoco_root, small):
    class Letters:
        def __call__(self, texts, add_special_tokens):
            return type('Batch', (), dict(input_ids=[list(text) for text in texts]))

    dataset = RefCOCODataset(refcoco_root, tokenizer=dict(type=Letters), num_image_tokens=100, repeats=2, **small)
    lengths = dataset.modality_length
    assert lengths.dtype == np.int32 and len(lengths) == len(dataset)
    for index in range(len(dataset)):
        sample = dataset[index]
        exact = 100 + 2 + sample['prompt_masks'].sum().item() + len(sample['caption'])
        assert abs(lengths[index] - exact) <= 8, 'the region tokens are estimated'
    once = RefCOCODataset(refcoco_root, tokenizer=Letters(), num_image_tokens=100, **small)
    np.testing.assert_array_equal(once.modality_length, lengths[:3])


def test_inside_xtuner(refcoco_root, sa1b_root, sav_root, tmp_path, small):
    pytest.importorskip('xtuner')
    from xtuner.dataset import ConcatDataset
    from xtuner.dataset.samplers import LengthGroupedSampler

    import dual_loop  # noqa: F401  the shims that let xtuner import

    dataset = ConcatDataset(datasets=[
        dict(type=RefCOCODataset, data_root=refcoco_root, repeats=2, **small),
        dict(type='dual_loop.datasets.SA1BDataset', data_root=sa1b_root, **small),
        dict(type=SAVPairDataset, data_root=sav_root, **small),
        dict(type=SAVPairDataset, data_root=tmp_path / 'nowhere', optional=True, **small)])
    assert len(dataset) == 6 + 4 + 3
    sampler = LengthGroupedSampler(dataset, per_device_batch_size=4, length_property='modality_length', seed=0)
    assert sampler.length == [length for part in dataset.datasets for length in part.modality_length]
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=collate_samples)
    seen = [name for batch in loader for name in batch['sample_ids']]
    assert len(seen) == len(sampler) and len(set(seen)) == 10
    assert 'refcoco: 6 samples' in repr(dataset)


def test_registered_with_mmengine(sa1b_root, small):
    from mmengine.registry import DATASETS

    assert len(DATASETS.build(dict(type='SA1BDataset', data_root=str(sa1b_root), **small))) == 4
