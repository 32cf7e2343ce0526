import gzip
import multiprocessing
import pickle

import pytest

from dual_loop.datasets.quarantine import BadSample
from dual_loop.datasets.tars import TarReader, tar_members


def test_members_are_read_by_offset(tmp_path, write_tar):
    contents = {'a.jpg': b'first', 'folder/' + 'b' * 150 + '.jpg': b'second' * 1000, 'c.jpg': b'x'}
    write_tar(tmp_path / 'x.tar', contents)
    reader = TarReader()
    tar = tmp_path / 'x.tar'
    assert {name: reader.read(tar, offset, size) for name, offset, size in tar_members(tar)} == contents


@pytest.mark.parametrize('name', ['/etc/passwd', '../up.jpg', 'a/../../up.jpg'])
def test_paths_that_lead_out_are_refused(tmp_path, write_tar, name):
    write_tar(tmp_path / 'x.tar', {'a.jpg': b'first', name: b'bad'})
    with pytest.raises(ValueError, match=r'x\.tar is refused.*outside'):
        list(tar_members(tmp_path / 'x.tar'))


def test_other_files_are_refused(tmp_path, write_tar):
    write_tar(tmp_path / 'x.tar', {'a.jpg': b'first' * 1000})
    (tmp_path / 'z.tar').write_bytes(gzip.compress((tmp_path / 'x.tar').read_bytes()))
    with pytest.raises(ValueError, match=r'z\.tar is not an uncompressed tar'):
        list(tar_members(tmp_path / 'z.tar'))


def test_cut_or_missing_archive_is_a_bad_sample(tmp_path):
    (tmp_path / 'x.tar').write_bytes(b'short')
    with pytest.raises(BadSample, match='ends before byte 12'):
        TarReader().read(tmp_path / 'x.tar', 2, 10)
    with pytest.raises(BadSample, match='No such file'):
        TarReader().read(tmp_path / 'y.tar', 0, 1)


def test_reader_survives_pickling_and_forking(tmp_path):
    (tmp_path / 'x.tar').write_bytes(bytes(range(100)))
    reader = TarReader()
    assert reader.read(tmp_path / 'x.tar', 3, 2) == b'\x03\x04'
    assert pickle.loads(pickle.dumps(reader)).read(tmp_path / 'x.tar', 5, 1) == b'\x05'
    with multiprocessing.get_context('fork').Pool(2) as pool:
        parts = pool.starmap(reader.read, [(tmp_path / 'x.tar', start, 10) for start in range(0, 90, 10)])
    assert b''.join(parts) == bytes(range(90))
    assert reader.read(tmp_path / 'x.tar', 3, 2) == b'\x03\x04'
