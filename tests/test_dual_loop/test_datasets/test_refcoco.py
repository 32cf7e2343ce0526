import json
import os
import pickle

import pytest

from dual_loop.datasets import MissingData, RefCOCODataset, TooManyBadSamples, held_out_image_ids, refcoco, refs
from dual_loop.datasets.refs import read_refs


def test_every_sentence_of_every_reference(refcoco_root, small):
    samples = list(RefCOCODataset(refcoco_root, **small))
    assert [s['caption'] for s in samples] == ['left box', 'tall box', 'right box']
    assert [s['sample_id'] for s in samples] == ['COCO_7_0_0', 'COCO_7_0_1', 'COCO_7_1_10']
    assert [s['caption'] for s in RefCOCODataset(refcoco_root, split='val', **small)] == ['left one']
    assert 'kind' not in samples[0] and samples[0]['source'] == 'refcoco'
    # Object 1 spans x 4..24 of 64; pycocotools rounds polygons to pixel centres.
    columns = samples[0]['masks'].any(0).nonzero().flatten().tolist()
    assert columns[0] in (3, 4, 5) and columns[-1] in (22, 23, 24)


def test_kind_is_kept(refcoco_root, small):
    file = refcoco_root / 'refcoco' / 'refs(unc).p'
    refs = pickle.loads(file.read_bytes())
    refs[0]['sentences'][0]['kind'] = 'relation'
    file.write_bytes(pickle.dumps(refs))
    assert [s['kind'] for s in RefCOCODataset(refcoco_root, **small)] == ['', '', 'relation']
    assert RefCOCODataset(refcoco_root, num_objects=2, **small)[0]['kind'] == ['', 'relation']


def test_splits(refcoco_root, small):
    for dataset in ('refcoco', 'refcoco+'):
        with pytest.raises(ValueError, match='testA.*testB'):
            RefCOCODataset(refcoco_root, dataset=dataset, split='test', **small)
    with pytest.raises(ValueError, match="no split 'testA', only train, val"):
        RefCOCODataset(refcoco_root, split='testA', **small)
    with pytest.raises(ValueError, match='refcocog'):
        RefCOCODataset(refcoco_root, dataset='refclef', **small)
    with pytest.raises(MissingData, match=r"refs\(umd\)\.p.*split_by.*'unc'"):
        RefCOCODataset(refcoco_root, split_by='umd', **small)


def test_excluded_images(refcoco_root, small):
    assert len(RefCOCODataset(refcoco_root, exclude_image_ids=[8, 9], **small)) == 3
    with pytest.raises(MissingData, match='no samples'):
        RefCOCODataset(refcoco_root, exclude_image_ids=(7,), **small)
    held_out = dict(type=held_out_image_ids, data_root=refcoco_root)
    assert len(RefCOCODataset(refcoco_root, exclude_image_ids=held_out, **small)) == 3
    assert not len(RefCOCODataset(refcoco_root, split='val', exclude_image_ids=held_out, optional=True, **small))


def write_refs(root, dataset, partition, *entries):
    """References to object 1 of (image, split)."""
    folder = root / dataset
    if not folder.exists():
        folder.mkdir()
        for name in ('coco2014', 'instances.json'):
            (folder / name).symlink_to(root / 'refcoco' / name)
    content = [dict(ref_id=number, ann_id=10 * image + 1, image_id=image, split=split,
                    sentences=[dict(sent=f'image {image}', sent_id=number)])
               for number, (image, split) in enumerate(entries)]
    (folder / f'refs({partition}).p').write_bytes(pickle.dumps(content, protocol=2))


def test_train_leaves_out_by_default_what_any_variant_holds_out(refcoco_root, small):
    write_refs(refcoco_root, 'refcoco', 'unc', (7, 'train'), (8, 'train'), (8, 'val'))
    assert [s['caption'] for s in RefCOCODataset(refcoco_root, **small)] == ['image 7']
    write_refs(refcoco_root, 'refcoco+', 'unc', (7, 'testA'), (8, 'train'))
    with pytest.raises(MissingData, match='no samples'):
        RefCOCODataset(refcoco_root, **small)
    assert len(RefCOCODataset(refcoco_root, exclude_image_ids=(), **small)) == 2
    assert [s['caption'] for s in RefCOCODataset(refcoco_root, split='val', **small)] == ['image 8']
    assert [s['caption'] for s in RefCOCODataset(refcoco_root, 'refcoco+', 'testA', **small)] == ['image 7']
    write_refs(refcoco_root, 'refcoco+', 'unc', (8, 'train'))
    write_refs(refcoco_root, 'refcocog', 'google', (8, 'train'), (7, 'val'))
    with pytest.raises(MissingData, match='no samples'):
        RefCOCODataset(refcoco_root, **small)


def test_the_test_split_of_refcocog_is_that_of_umd(refcoco_root, small):
    write_refs(refcoco_root, 'refcocog', 'google', (7, 'train'), (7, 'val'))
    write_refs(refcoco_root, 'refcocog', 'umd', (7, 'train'), (8, 'test'))
    with pytest.raises(ValueError, match="'google' of refcocog has no split 'test'.*split_by='umd'"):
        RefCOCODataset(refcoco_root, 'refcocog', 'test', 'google', **small)
    assert len(RefCOCODataset(refcoco_root, 'refcocog', 'test', 'umd', **small)) == 1
    assert len(RefCOCODataset(refcoco_root, 'refcocog', 'val', 'google', **small)) == 1


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'touch {self.mark}', )


def test_references_that_carry_a_call_are_refused_and_not_run(refcoco_root, tmp_path, small):
    (refcoco_root / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps([Attack(tmp_path / 'ran')], protocol=2))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p is refused.*system.*Nothing of it was run'):
        RefCOCODataset(refcoco_root, optional=True, **small)
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p is refused.*system'):
        held_out_image_ids(refcoco_root)
    assert not (tmp_path / 'ran').exists()


def test_the_stored_index_is_opened_without_reading_the_references(refcoco_root, small, monkeypatch):
    first = RefCOCODataset(refcoco_root, **small)
    reads = []
    for module in (refcoco, refs):
        monkeypatch.setattr(module, 'read_refs', lambda path: reads.append(path) or read_refs(path))
    refs._held_out.cache_clear()
    second = RefCOCODataset(refcoco_root, **small)
    assert not reads and [s['caption'] for s in second] == [s['caption'] for s in first]
    assert [second.sample_id(row) for row in range(3)] == ['COCO_7_0_0', 'COCO_7_0_1', 'COCO_7_1_10']
    write_refs(refcoco_root, 'refcocog', 'umd', (7, 'test'))
    with pytest.raises(MissingData, match='no samples'):
        RefCOCODataset(refcoco_root, **small)
    assert reads, 'another variant holds out other images'


@pytest.mark.parametrize('part, change', [
    ('images', dict(file_name='../../secret.jpg')), ('images', dict(file_name='/etc/passwd')),
    ('images', dict(file_name=None)), ('images', dict(file_name='\ud800.jpg')),
    ('annotations', dict(segmentation=None)), ('annotations', dict(id=12345))])
def test_entries_of_the_instances_that_cannot_be_used_are_noted(refcoco_root, small, part, change):
    file = refcoco_root / 'refcoco' / 'instances.json'
    content = json.loads(file.read_text())
    for entry in content[part]:
        if entry['id'] in (7, 71, 72):
            entry |= change
    file.write_text(json.dumps(content))
    with pytest.raises(TooManyBadSamples, match='2 of 2 samples of refcoco are bad, so that nothing is left; the'):
        RefCOCODataset(refcoco_root, exclude_image_ids=(), optional=True, **small)
    assert len(RefCOCODataset(refcoco_root, split='val', **small)) == 1


def test_sizes_that_are_no_numbers_only_cost_the_estimate_of_lengths(refcoco_root, small):
    file = refcoco_root / 'refcoco' / 'instances.json'
    content = json.loads(file.read_text())
    for entry in content['annotations']:
        entry |= dict(bbox=['a', None], area='large')
    file.write_text(json.dumps(content))
    dataset = RefCOCODataset(refcoco_root, **small)
    assert len(dataset) == len(dataset.modality_length) == 3 and dataset[0]['masks'].any()


def test_broken_entries_are_counted_and_broken_files_refused(refcoco_root, small):
    file = refcoco_root / 'refcoco' / 'refs(unc).p'
    refs = pickle.loads(file.read_bytes())
    refs[0]['ann_id'] = 12345
    refs[1]['sentences'][0]['sent'] = ' \t'
    refs[1]['sentences'][1]['sent'] = '\ud800'
    refs[1]['sentences'].append(dict(sent='Tall box', sent_id=2))
    file.write_bytes(pickle.dumps(refs))
    dataset = RefCOCODataset(refcoco_root, **small)
    assert [s['caption'] for s in dataset] == ['tall box'] and dataset.quarantine.count == 3
    instances = refcoco_root / 'refcoco' / 'instances.json'
    for content in ('', json.dumps(dict(images=[]))):
        instances.write_text(content)
        with pytest.raises(ValueError, match=r'instances\.json is not'):
            RefCOCODataset(refcoco_root, **small)


# Ids --------------------------------------------------------------------------------------------------------------


def change(root, of_refs=None, of_instances=None):
    file = root / 'refcoco' / 'refs(unc).p'
    if of_refs:
        content = pickle.loads(file.read_bytes())
        of_refs(content)
        file.write_bytes(pickle.dumps(content, protocol=2))
    if of_instances:
        file = root / 'refcoco' / 'instances.json'
        content = json.loads(file.read_text())
        of_instances(content['images'], content['annotations'])
        file.write_text(json.dumps(content))


def found(dataset):
    return ([dataset.sample_id(row) for row in range(len(dataset))],
            {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries})


ONLY_LEFT = ['COCO_7_0_0', 'COCO_7_0_1']


@pytest.mark.parametrize('of_refs, of_instances, name, reason', [
    (lambda refs: refs[0].update(image_id=8), None, 'refcoco_1', '72 belongs to image 7, the reference to image 8'),
    (lambda refs: refs[0].update(ann_id=82), None, 'refcoco_1', 'annotation 82 belongs to image 8'),
    (None, lambda images, annotations: annotations.append(dict(annotations[0], id=72)), 'refcoco_1', 'listed twice'),
    (lambda refs: refs[0].update(ref_id='1'), None, 'refcoco entry 0', 'entry 0 has no usable ref_id'),
    (lambda refs: refs[0].update(ann_id=2**70), None, 'refcoco entry 0', 'entry 0 has no usable ann_id'),
    (lambda refs: refs[0].update(sentences=None), None, 'refcoco entry 0', 'entry 0 has no usable sentences'),
    (lambda refs: refs[0].update(sentences=[7]), None, 'COCO_7_1_sentence0', 'the sentence is empty or no valid text'),
    (lambda refs: refs[0]['sentences'][0].update(sent=3), None, 'COCO_7_1_sentence0', 'the sentence is empty or no'),
    (lambda refs: refs[0]['sentences'][0].update(sent_id=-1), None, 'COCO_7_1_sentence0', 'no usable sent_id'),
    (None, lambda images, annotations: annotations[1].update(id=2**70), 'refcoco_1', '72 is not listed, but 1 have'),
    (None, lambda images, annotations: annotations[1].update(segmentation=[[[3]]]), 'refcoco_1', 'no usable segmen'),
])
def test_an_odd_entry_costs_itself_and_is_named(refcoco_root, small, of_refs, of_instances, name, reason):
    change(refcoco_root, of_refs, of_instances)
    ids, bad = found(RefCOCODataset(refcoco_root, exclude_image_ids=(), **small))
    assert ids == ONLY_LEFT and list(bad) == [name] and reason in bad[name]


def test_names_that_repeat(refcoco_root, small):
    change(refcoco_root, lambda refs: (refs[1]['sentences'].append(dict(sent='other', sent_id=1)),
                                       refs.append(dict(refs[0], ref_id=0))))
    ids, bad = found(RefCOCODataset(refcoco_root, **small))
    assert ids == [*ONLY_LEFT, 'COCO_7_1_10']
    assert bad == {'refcoco_0 again': 'a reference before it has that ref_id',
                   'COCO_7_0_1 again': 'a sentence before it has that sent_id'}


def test_one_file_for_two_images(refcoco_root, small):
    """One of them may be held out."""
    change(refcoco_root, None, lambda images, annotations: images.append(dict(images[0], id=9)))
    with pytest.raises(TooManyBadSamples, match='image 7 has the file_name of image 9'):
        RefCOCODataset(refcoco_root, optional=True, **small)


def test_an_odd_entry_of_another_split_costs_nothing(refcoco_root, small):
    change(refcoco_root, lambda refs: refs[2].update(ann_id='x'))
    assert found(RefCOCODataset(refcoco_root, **small)) == ([*ONLY_LEFT, 'COCO_7_1_10'], {})


def test_crowds_that_a_reference_names_are_objects(refcoco_root, small):
    change(refcoco_root, None, lambda images, annotations: [each.update(iscrowd=1) for each in annotations])
    assert len(RefCOCODataset(refcoco_root, **small)) == 3
    assert len(RefCOCODataset(refcoco_root, split='val', **small)) == 1


def rename_as_coco(root):
    def rename(images, annotations):
        for image in images:
            name = f'COCO_train2014_{image["id"]:012d}.jpg'
            folder = root / 'refcoco' / 'coco2014' / 'train2014'
            (folder / image['file_name']).rename(folder / name)
            image['file_name'] = name

    change(root, None, rename)


def test_phrases_on_pictures_of_coco_need_a_list(refcoco_root, small):
    """References of one's own hold out nothing."""
    rename_as_coco(refcoco_root)
    assert len(RefCOCODataset(refcoco_root, **small)) == 3, 'image 8 is held out'
    change(refcoco_root, lambda refs: refs[2].update(split='train'))
    with pytest.raises(ValueError, match=r'holds out nothing and shows pictures of COCO.*exclude_image_ids=.*or \(\)'):
        RefCOCODataset(refcoco_root, optional=True, **small)
    assert len(RefCOCODataset(refcoco_root, exclude_image_ids=(), **small)) == 4
    assert len(RefCOCODataset(refcoco_root, exclude_image_ids=[7], **small)) == 1
