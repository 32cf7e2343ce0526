import pickle

import pytest

from dual_loop.datasets import held_out_image_ids, load_refs


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, 'w')


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_without_running(tmp_path, protocol):
    mark = tmp_path / 'ran'
    file = tmp_path / 'refs(unc).p'
    file.write_bytes(pickle.dumps([Bomb(str(mark))], protocol=protocol))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p is refused.*open'):
        load_refs(file)
    assert not mark.exists()


def test_harmless_globals_are_refused_too(tmp_path):
    file = tmp_path / 'refs.p'
    file.write_bytes(pickle.dumps([complex(1, 2)]))
    with pytest.raises(ValueError, match='complex'):
        load_refs(file)


@pytest.mark.parametrize('content', [b'', b'no pickle', pickle.dumps([1])[:-3], pickle.dumps({}), pickle.dumps([{}]),
                                     pickle.dumps([dict(ref_id=1, ann_id=1, image_id=1, split='', sentences=[{}])])])
def test_other_files_are_refused(tmp_path, content):
    file = tmp_path / 'refs.p'
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
