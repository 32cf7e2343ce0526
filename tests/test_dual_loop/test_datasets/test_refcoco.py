import json
import pickle

import pytest

from dual_loop.datasets import MissingData, RefCOCODataset, held_out_image_ids


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


def test_broken_entries_are_counted_and_broken_files_refused(refcoco_root, small):
    file = refcoco_root / 'refcoco' / 'refs(unc).p'
    refs = pickle.loads(file.read_bytes())
    refs[0]['ann_id'] = 12345
    refs[1]['sentences'][0]['sent'] = ' '
    file.write_bytes(pickle.dumps(refs))
    dataset = RefCOCODataset(refcoco_root, **small)
    assert [s['caption'] for s in dataset] == ['tall box'] and dataset.quarantine.count == 2
    instances = refcoco_root / 'refcoco' / 'instances.json'
    for content in ('', json.dumps(dict(images=[]))):
        instances.write_text(content)
        with pytest.raises(ValueError, match=r'instances\.json is not'):
            RefCOCODataset(refcoco_root, **small)
