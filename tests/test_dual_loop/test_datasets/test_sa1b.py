import json
import os

import pytest
import torch

from dual_loop.datasets import SA1BDataset, TooManyBadSamples, set_work_dir


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


def rewrite(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def found(dataset):
    """(sample ids, sample id -> what is wrong)."""
    return ([dataset.sample_id(row) for row in range(len(dataset))],
            {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries})


@pytest.mark.parametrize('change, reason', [
    (lambda c: c['annotations'][1].update(id=11), 'its id 11 is that of annotations[0]'),
    (lambda c: c['annotations'].__setitem__(1, 'damage'), 'it is no annotation'),
    (lambda c: c['annotations'][1].update(segmentation=None), 'no usable segmentation'),
    (lambda c: c['annotations'][1].update(segmentation=dict(size=[[48]], counts='x')), 'no usable segmentation'),
    (lambda c: (c['image'].update(image_id=1), c['annotations'][1].update(image_id=2)), 'to image 2, the file to'),
    (lambda c: (c['image'].update(id=1), c['annotations'][1].update(image_id='b')), "to image 'b', the file to"),
])
def test_an_odd_annotation_costs_itself(sa1b_root, small, change, reason):
    rewrite(sa1b_root / 'sa_000000' / 'sa_1.json', change)
    ids, bad = found(SA1BDataset(sa1b_root, **small))
    assert ids == ['sa_1_11', 'sa_2_11', 'sa_2_12'] and list(bad) == ['sa_000000/sa_1 annotations[1]']
    assert reason in bad['sa_000000/sa_1 annotations[1]']


@pytest.mark.parametrize('value', [2**63, 10**400, 'a1', True, 1.5, None])
def test_an_odd_id_is_replaced_by_the_position(sa1b_root, small, value):
    rewrite(sa1b_root / 'sa_000000' / 'sa_1.json', lambda content: content['annotations'][1].update(id=value))
    assert found(SA1BDataset(sa1b_root, **small)) == (['sa_1_11', 'sa_1_1', 'sa_2_11', 'sa_2_12'], {})


def test_numbers_that_no_column_holds_only_cost_the_estimate(sa1b_root, small):
    rewrite(sa1b_root / 'sa_000000' / 'sa_1.json', lambda content: (
        content['annotations'][0].update(area=10**400, bbox=[0, 0, float('nan'), 10**400])))
    dataset = SA1BDataset(sa1b_root, **small)
    assert len(dataset.modality_length) == 4 and not dataset.quarantine.count


def test_an_annotation_file_of_another_picture(sa1b_root, small):
    rewrite(sa1b_root / 'sa_000000' / 'sa_1.json', lambda content: content['image'].update(file_name='sa_2.jpg'))
    ids, bad = found(SA1BDataset(sa1b_root, **small))
    assert ids == ['sa_2_11', 'sa_2_12'] and "of 'sa_2.jpg' by its content, of sa_1.jpg" in bad['sa_000000/sa_1']


def test_files_of_one_name_are_told_apart_by_their_folders(sa1b_root, small, tiny):
    (sa1b_root / 'more').mkdir()
    for suffix in ('.jpg', '.json'):
        data = (sa1b_root / 'sa_000000' / f'sa_1{suffix}').read_bytes()
        (sa1b_root / 'more' / f'sa_1{suffix}').write_bytes(data)
    rewrite(sa1b_root / 'more' / 'sa_1.json',
            lambda content: content['annotations'][0].update(segmentation=tiny.rle(~tiny.masks[1])))
    dataset = SA1BDataset(sa1b_root, **small)
    samples = {sample['sample_id']: sample for sample in dataset}
    assert list(samples) == ['more/sa_1_11', 'more/sa_1_12', 'sa_000000/sa_1_11', 'sa_000000/sa_1_12', 'sa_2_11',
                             'sa_2_12']
    assert torch.equal(samples['more/sa_1_11']['masks'], ~samples['sa_000000/sa_1_11']['masks'])


def test_two_annotation_files_of_one_picture(sa1b_root, small, tmp_path):
    for folder, suffix in (('img', '.jpg'), ('js', '.json'), ('img', '.json')):
        (tmp_path / 'flat' / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / 'flat' / folder / f'a{suffix}').write_bytes((sa1b_root / f'sa_000000/sa_1{suffix}').read_bytes())
    ids, bad = found(SA1BDataset(tmp_path / 'flat', **small))
    assert ids == ['a_11', 'a_12'] and bad == {'js/a': 'img/a.json is the annotation file of the same picture'}


def test_crowds_are_no_objects_unless_asked_for(sa1b_root, small):
    rewrite(sa1b_root / 'sa_000000' / 'sa_1.json', lambda content: content['annotations'][0].update(iscrowd=1))
    assert found(SA1BDataset(sa1b_root, **small)) == (['sa_1_12', 'sa_2_11', 'sa_2_12'], {})
    assert SA1BDataset(sa1b_root, num_objects=2, **small)[0]['masks'].shape[0] == 1
    assert found(SA1BDataset(sa1b_root, crowds=True, **small))[0] == ['sa_1_11', 'sa_1_12', 'sa_2_11', 'sa_2_12']


def test_what_other_systems_leave_is_no_sample(sa1b_root, small):
    good = (sa1b_root / 'sa_000000' / 'sa_1.json').read_bytes()
    for name in ('._sa_1.json', '.sa_3.json', '__MACOSX/sa_000000/sa_4.json', '.Trash-1000/files/sa_5.json',
                 '@eaDir/sa_6.json', '.DS_Store', 'Thumbs.db', 'desktop.ini'):
        (sa1b_root / name).parent.mkdir(parents=True, exist_ok=True)
        (sa1b_root / name).write_bytes(good)
    assert found(SA1BDataset(sa1b_root, **small)) == (['sa_1_11', 'sa_1_12', 'sa_2_11', 'sa_2_12'], {})


def test_a_name_that_is_no_utf8_is_a_bad_sample(sa1b_root, small, tmp_path):
    folder = os.fsencode(sa1b_root / 'sa_000000')
    for suffix in (b'.jpg', b'.json'):
        os.rename(folder + b'/sa_2' + suffix, folder + b'/caf\xe9' + suffix)
    dataset = SA1BDataset(sa1b_root, **small)
    set_work_dir(dataset, tmp_path / 'work')
    assert found(dataset) == (['sa_1_11', 'sa_1_12'],
                              {'sa_000000/caf\\udce9.json': 'its name is not UTF-8: rename the file'})
    assert 'caf' in (tmp_path / 'work' / 'bad_samples.jsonl').read_text()


def test_a_key_twice_and_deep_nesting_are_bad_samples(sa1b_root, small):
    first, second = (sa1b_root / 'sa_000000' / f'sa_{number}.json' for number in (1, 2))
    second.write_text('{"annotations": [], ' + first.read_text()[1:])
    for name in ('deep', 'deeper'):
        (sa1b_root / f'{name}.json').write_text('{"annotations": ' + '[' * 100_000 + ']' * 100_000 + '}')
    first.write_text(first.read_text().replace('"id": 11', '"id": 5, "id": 11'))
    ids, bad = found(SA1BDataset(sa1b_root, **small))
    assert ids == ['sa_1_12'] and "has the key 'annotations' twice" in bad['sa_000000/sa_2']
    assert "has the key 'id' twice" in bad['sa_000000/sa_1 annotations[0]'] and 'nested too deeply' in bad['deep']


def test_all_bad_is_not_no_samples_and_never_optional_and_found_again_when_repaired(sa1b_root, small):
    files = sorted((sa1b_root / 'sa_000000').glob('*.json'))
    good = [file.read_text() for file in files]
    for file in files:
        file.write_text('{')
    for optional in (False, True):
        with pytest.raises(TooManyBadSamples, match=r'2 of 2 samples of sa1b are bad, so that nothing is left; the '
                                                    r'first one is sa_000000/sa_1, .*sa_1\.json: is not a JSON file'):
            SA1BDataset(sa1b_root, optional=optional, **small)
    for file, text in zip(files, good):
        file.write_text(text)  # in place, which the folder does not show
    assert len(SA1BDataset(sa1b_root, **small)) == 4
