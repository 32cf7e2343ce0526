"""Which annotation and image a reference means, and when that cannot be known."""

import copy
import json

import pytest

from dual_loop.datasets import refs
from dual_loop.datasets.instances import Instances, is_segmentation
from dual_loop.datasets.quarantine import BadSample

OUTLINE = [[0, 0, 9, 0, 9, 9]]
CONTENT = dict(
    images=[dict(id=1, file_name='a.jpg'), dict(id=2, file_name='b.jpg'),
            dict(id=3, file_name='COCO_train2014_000000000003.jpg')],
    annotations=[dict(id=10 * number, image_id=number, segmentation=OUTLINE) for number in (1, 2, 3)])


def test_the_entries_of_a_reference():
    instances = Instances(copy.deepcopy(CONTENT))
    for number in (1, 2, 3):
        annotation, image = instances.join(10 * number, number)
        assert annotation['id'] == 10 * number and image['id'] == number


@pytest.mark.parametrize('change, reason', [
    (lambda c: c['annotations'][0].update(image_id=2), 'annotation 10 belongs to image 2, the reference to image 1'),
    (lambda c: c['annotations'][0].update(image_id=[[1]]), 'belongs to image that is no number'),
    (lambda c: c['annotations'].append(dict(c['annotations'][0], area=1)), 'annotation 10 is listed twice'),
    (lambda c: c['annotations'].insert(0, dict(c['annotations'][0], image_id=2)), 'annotation 10 is listed twice'),
    (lambda c: c['annotations'].pop(0), 'annotation 10 is not listed$'),
    (lambda c: c['annotations'][0].update(id='10'), r'10 is not listed, but 1 have no usable id.*annotations\[0\]'),
    (lambda c: c['annotations'].__setitem__(0, 'damage'), r'10 is not listed, but 1 have.*annotations\[0\]'),
    (lambda c: c['annotations'][0].update(segmentation=3), 'no usable segmentation'),
    (lambda c: c['images'].append(dict(id=1, file_name='c.jpg')), 'image 1 is listed twice'),
    (lambda c: c['images'][1].update(file_name='a.jpg'), 'image 1 has the file_name of image 2'),
    (lambda c: c['images'][0].update(file_name='../a.jpg'), 'no plain file_name'),
    (lambda c: c['images'][0].update(file_name='a\0.jpg'), 'no plain file_name'),
    (lambda c: c['images'][0].update(file_name='COCO_train2014_000000000002.jpg'), 'file_name of image 2'),
    (lambda c: c['images'].pop(0), 'image 1 is not listed'),
])
def test_contradictions_are_bad_samples_and_others_stay(change, reason):
    content = copy.deepcopy(CONTENT)
    change(content)
    instances = Instances(content)
    with pytest.raises(BadSample, match=reason):
        instances.join(10, 1)
    assert instances.join(30, 3)[1]['id'] == 3


def test_the_same_entry_twice_is_no_contradiction():
    content = copy.deepcopy(CONTENT)
    for entries in content.values():
        entries += copy.deepcopy(entries)
    assert Instances(content).join(10, 1)[1]['file_name'] == 'a.jpg'


def test_a_key_twice_in_one_entry(tmp_path):
    file = tmp_path / 'instances.json'
    text = json.dumps(CONTENT)
    file.write_text(text.replace('"image_id": 1,', '"image_id": 2, "image_id": 1,'))
    instances = Instances(refs.load_instances(file))
    with pytest.raises(BadSample, match="annotation 10 has the key 'image_id' twice"):
        instances.join(10, 1)
    assert instances.join(20, 2)
    file.write_text(text.replace('"annotations":', '"annotations": [], "annotations":'))
    with pytest.raises(ValueError, match=r"instances\.json is not one COCO file: it has the key 'annotations' twice"):
        refs.load_instances(file)


@pytest.mark.parametrize('value, expected', [
    ([], True), (OUTLINE, True), (dict(size=[3, 4], counts='x'), True), (dict(size=[3, 4], counts=[12]), True),
    (None, False), ('text', False), ([[[1]]], False), (dict(size=[[3]], counts=[12]), False), ([{}], False),
    (dict(size={}, counts=[12]), False), (dict(size=[3, 4], counts=[[12]]), False)])
def test_what_can_be_a_segmentation(value, expected):
    assert is_segmentation(value) == expected
