import json

import torch

from dual_loop.datasets import SA1BDataset


def test_one_sample_per_annotation(sa1b_root, small):
    dataset = SA1BDataset(sa1b_root, **small)
    assert [s['sample_id'] for s in dataset] == ['sa_1_11', 'sa_1_12', 'sa_2_11', 'sa_2_12']
    sample = dataset[0]
    assert sample['caption'] is None and sample['source'] == 'sa1b'
    # x 4..24 of 64 and y 6..36 of 48, on a 64 x 64 target.
    assert sample['masks'].any(0).nonzero().flatten().tolist() == list(range(4, 24))
    assert sample['masks'].any(1).nonzero().flatten().tolist() == list(range(8, 48))
    assert sample['prompt_masks'].any(0).tolist() == [True] * 3 + [False] * 5
    assert sample['prompt_masks'].any(1).tolist() == [False] + [True] * 5 + [False] * 2


def test_other_layout_gives_the_same(sa1b_root, small, tmp_path):
    for source, target in (('jpg', 'img'), ('json', 'js')):
        (tmp_path / 'flat' / target).mkdir(parents=True)
        for file in sa1b_root.rglob(f'*.{source}'):
            (tmp_path / 'flat' / target / file.name).write_bytes(file.read_bytes())
    pairs = zip(SA1BDataset(sa1b_root, **small), SA1BDataset(tmp_path / 'flat', **small), strict=True)
    for one, other in pairs:
        assert one['sample_id'] == other['sample_id'] and torch.equal(one['masks'], other['masks'])


def test_broken_annotation_files_are_counted(sa1b_root, small):
    folder = sa1b_root / 'sa_000000'
    good = json.loads((folder / 'sa_1.json').read_text())
    for number, content in enumerate(('', '{"annotations": [{]', '[]', '{"annotations": 3}'), 3):
        (folder / f'sa_{number}.json').write_text(content)
    good['annotations'][0]['segmentation']['size'] = [64, 48]
    (folder / 'sa_1.json').write_text(json.dumps(good))
    dataset = SA1BDataset(sa1b_root, **small)
    assert len(dataset) == 4 and dataset.quarantine.count == 4
    assert dataset[0]['sample_id'] != 'sa_1_11' and dataset.quarantine.count == 5


def test_annotations_without_box_or_id(sa1b_root, small):
    folder = sa1b_root / 'sa_000000'
    for number in (1, 2):
        content = json.loads((folder / f'sa_{number}.json').read_text())
        bare = [dict(segmentation=each['segmentation']) for each in content['annotations']]
        (folder / f'sa_{number}.json').write_text(json.dumps(dict(annotations=bare)))
    dataset = SA1BDataset(sa1b_root, num_objects=2, **small)
    assert [s['sample_id'] for s in dataset] == ['sa_1_0', 'sa_1_1', 'sa_2_0', 'sa_2_1']
    assert dataset[1]['masks'].shape == (2, 64, 64) and min(dataset.modality_length) > 256


def test_a_coco_file_among_them_is_not_taken_for_one(sa1b_root, small):
    (sa1b_root / 'instances.json').write_text('{"images": [], "annotations": [{"id": 1}]}')
    dataset = SA1BDataset(sa1b_root, **small)
    assert len(dataset) == 4 and 'COCO file' in dataset.quarantine.entries[0]['reason']


def test_companions_are_of_the_same_image(sa1b_root, small, tiny):
    second = sa1b_root / 'sa_000000' / 'sa_2.json'
    content = json.loads(second.read_text())
    for annotation, mask in zip(content['annotations'], tiny.masks.values()):
        annotation['segmentation'] = tiny.rle(~mask)
    second.write_text(json.dumps(content))
    single = [sample['masks'] for sample in SA1BDataset(sa1b_root, **small)]
    for row, sample in enumerate(SA1BDataset(sa1b_root, num_objects=5, **small)):
        assert sample['sample_id'] == ['sa_1_11', 'sa_1_12', 'sa_2_11', 'sa_2_12'][row]
        assert torch.equal(sample['masks'], torch.stack([single[row], single[row ^ 1]]))


def test_first_samples_do_not_need_the_other_files(sa1b_root, small):
    folder = sa1b_root / 'sa_000000'
    for number in range(100, 300):
        (folder / f'sa_{number}.json').write_text('{"annotations": []}')
    (folder / 'sa_3.json').write_text('')
    for count, bad in ((2, 0), (5, 1)):
        dataset = SA1BDataset(sa1b_root, max_samples=count, **small)
        assert len(dataset) == min(count, 4) and dataset.quarantine.count == bad
