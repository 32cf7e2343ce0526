import json
import os
import pickle

import pytest

from dual_loop.datasets import held_out_image_ids, load_refs, refs
from dual_loop.datasets.refs import read_refs


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f'touch {self.file}', )


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_without_running(tmp_path, protocol):
    mark = tmp_path / 'ran'
    file = tmp_path / 'refs(unc).p'
    file.write_bytes(pickle.dumps([Bomb(str(mark))], protocol=protocol))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p is refused.*system'):
        load_refs(file)
    assert not mark.exists()


def test_harmless_globals_are_refused_too(tmp_path):
    file = tmp_path / 'refs.p'
    file.write_bytes(pickle.dumps([complex(1, 2)]))
    with pytest.raises(ValueError, match='complex'):
        load_refs(file)


GOOD = dict(ref_id=1, ann_id=2, image_id=3, split='train', sentences=[dict(sent='a', sent_id=4)])


@pytest.mark.parametrize('content', [b'', b'no pickle', pickle.dumps([1])[:-3], *map(pickle.dumps, [
    {}, [{}], [1], [dict(GOOD, sentences=[{}])], [dict(GOOD, sentences='a')], [dict(GOOD, sentences=[1])],
    [dict(GOOD, image_id='3')], [dict(GOOD, image_id=None)], [dict(GOOD, ref_id=2**63)], [dict(GOOD, ann_id=True)],
    [dict(GOOD, split=None)], [dict(GOOD, split=b'train')], [dict(GOOD, sentences=[dict(sent=1, sent_id=4)])]])])
def test_other_files_are_refused(tmp_path, content):
    file = tmp_path / 'refs.p'
    file.write_bytes(pickle.dumps([GOOD]))
    assert load_refs(file) == [GOOD]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'refs\.p.*Download it again'):
        load_refs(file)


def test_reads_what_python_2_wrote(tmp_path):
    # Protocol 2 of Python 2 stores str as bytes: "sent" here is a SHORT_BINSTRING with UTF-8 inside.
    ref = dict(ref_id=1, ann_id=2, image_id=3, split='train', sentences=[dict(sent='SENT', sent_id=4)])
    data = pickle.dumps([ref], protocol=2).replace(b'X\x04\x00\x00\x00SENT', b'U\x05caf\xc3\xa9')
    file = tmp_path / 'refs.p'
    file.write_bytes(data)
    assert load_refs(file)[0]['sentences'][0]['sent'] == 'café'


def test_held_out_images(refcoco_root, tmp_path):
    assert held_out_image_ids(refcoco_root) == [8]
    with pytest.raises(FileNotFoundError, match='data_root'):
        held_out_image_ids(tmp_path / 'nothing')


def write(root, dataset, partition, **splits):
    (root / dataset).mkdir(parents=True, exist_ok=True)
    content = [dict(GOOD, image_id=image, split=split) for split, images in splits.items() for image in images]
    (root / dataset / f'refs({partition}).p').write_bytes(pickle.dumps(content))


def test_held_out_is_what_any_variant_and_partition_holds_out(tmp_path):
    write(tmp_path, 'refcoco', 'unc', train=[1, 2], val=[3], testA=[4])
    write(tmp_path, 'refcoco', 'google', train=[3], test=[5])
    write(tmp_path, 'refcoco+', 'unc', train=[4], testB=[1])
    write(tmp_path, 'refcocog', 'umd', train=[1], test=[9])
    (tmp_path / 'refcocog' / 'refs(umd).p.part').write_bytes(b'an unfinished download')
    assert held_out_image_ids(tmp_path) == [1, 3, 4, 5, 9]
    assert held_out_image_ids(tmp_path, ['refcocog']) == [9]


def test_unchanged_files_are_read_once(tmp_path, monkeypatch):
    write(tmp_path, 'refcoco', 'unc', train=[1], val=[2])
    read = []
    monkeypatch.setattr(refs, 'read_refs', lambda path: read.append(path.name) or read_refs(path))
    held_out_image_ids(tmp_path).append(100)
    assert held_out_image_ids(tmp_path) == [2] and read == ['refs(unc).p']
    assert held_out_image_ids(str(tmp_path), iter(['refcoco'])) == [2] and len(read) == 1
    write(tmp_path, 'refcoco', 'unc', train=[1], val=[3])
    os.utime(tmp_path / 'refcoco' / 'refs(unc).p', ns=(1, 1))
    assert held_out_image_ids(tmp_path) == [3] and len(read) == 2
    write(tmp_path, 'refcoco+', 'unc', val=[7])
    assert held_out_image_ids(tmp_path) == [3, 7]


def test_a_variant_that_may_not_be_read_is_not_taken_for_none(tmp_path, monkeypatch):
    """Its held-out images would be trained on."""
    write(tmp_path, 'refcoco', 'unc', train=[1], val=[2])
    write(tmp_path, 'refcocog', 'umd', train=[1], val=[3])
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('refcocog'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'scandir', refuse)
        with pytest.raises(PermissionError, match='make it readable.*refcocog'):
            held_out_image_ids(tmp_path)

    def refuse_file(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr('pathlib.Path.read_bytes', refuse_file)
    with pytest.raises(PermissionError, match=r'make it readable.*refs\(umd\)\.p'):
        load_refs(tmp_path / 'refcocog' / 'refs(umd).p')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_closed_folder_is_named_with_the_remedy(tmp_path):
    write(tmp_path, 'refcoco', 'unc', train=[1], val=[2])
    (tmp_path / 'refcoco').chmod(0)
    try:
        with pytest.raises(PermissionError, match='make it readable.*refcoco'):
            held_out_image_ids(tmp_path)
    finally:
        (tmp_path / 'refcoco').chmod(0o755)


@pytest.mark.parametrize('content', [
    '', '[', '[]', '{"images": []}', '{"images": {}, "annotations": []}', '[' * 100_000,
    '{"images": [1], "annotations": []}', '{"images": [{"id": []}], "annotations": []}'])
def test_other_instance_files_are_refused(tmp_path, content):
    file = tmp_path / 'instances.json'
    file.write_text(json.dumps(dict(images=[dict(id=1)], annotations=[])))
    assert refs.load_instances(file)['images'] == [dict(id=1)]
    file.write_text(content)
    with pytest.raises(ValueError, match=r'instances\.json is not.*Download it again'):
        refs.load_instances(file)


@pytest.mark.parametrize('spoil, held_out', [
    (dict(ann_id='x'), [8]), (dict(split=None), [8]), (dict(sentences=3), [8]),
    (dict(image_id='8', file_name='COCO_train2014_000000000008_81.jpg'), [8]),
    (dict(image_id=None, file_name='COCO_train2014_000000000008_81.jpg', split=3), [8]),
    (dict(image_id=2**70, split='train'), [])])
def test_a_damaged_entry_holds_out_its_image_all_the_same(refcoco_root, spoil, held_out):
    file = refcoco_root / 'refcoco' / 'refs(unc).p'
    content = pickle.loads(file.read_bytes())
    content[2] |= spoil
    file.write_bytes(pickle.dumps(content))
    assert held_out_image_ids(refcoco_root) == held_out


@pytest.mark.parametrize('entry', [
    'damage', dict(GOOD, image_id='3', split='val'), dict(GOOD, image_id=-1, split=None)])
def test_an_entry_that_may_hold_out_any_image_is_an_error_that_names_it(tmp_path, entry):
    file = tmp_path / 'refcoco' / 'refs(unc).p'
    file.parent.mkdir()
    file.write_bytes(pickle.dumps([GOOD, entry]))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p: entry 1 has no usable .*nothing says which'):
        held_out_image_ids(tmp_path)
