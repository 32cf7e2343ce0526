import gzip
import multiprocessing
import pickle
import tarfile

import pytest

from dual_loop.datasets.quarantine import BadSample
from dual_loop.datasets.tars import DamagedTar, LongEnd, TarReader, tar_members


def test_members_are_read_by_offset(tmp_path, write_tar):
    contents = {'a.jpg': b'first', 'folder/' + 'b' * 150 + '.jpg': b'second' * 1000, 'c.jpg': b'x'}
    write_tar(tmp_path / 'x.tar', contents)
    reader = TarReader()
    tar = tmp_path / 'x.tar'
    assert {name: reader.bytes_at(tar, offset, size) for name, offset, size in tar_members(tar)} == contents


@pytest.mark.parametrize('name', ['/etc/passwd', '../up.jpg', 'a/../../up.jpg'])
def test_paths_that_lead_out_are_refused(tmp_path, write_tar, name):
    write_tar(tmp_path / 'x.tar', {'a.jpg': b'first', name: b'bad'})
    with pytest.raises(ValueError, match=r'x\.tar is refused.*outside'):
        list(tar_members(tmp_path / 'x.tar'))


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize('name, target, leads_out', [
    ('a.jpg', '/etc/passwd', True), ('a.jpg', '../up.jpg', True), ('a.jpg', 'b/../../up.jpg', True),
    ('/a.jpg', 'b.jpg', True), ('../a.jpg', 'b.jpg', True), ('a.jpg', 'b.jpg', False),
    ('a.jpg', './b/../c.jpg', False)])
def test_links_that_lead_out_are_refused_and_others_passed_over(tmp_path, kind, name, target, leads_out):
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, target
        archive.addfile(link)
    if not leads_out:
        assert list(tar_members(tmp_path / 'x.tar')) == []
        return
    with pytest.raises(ValueError, match=r'x\.tar is refused.*outside'):
        list(tar_members(tmp_path / 'x.tar'))


def test_a_symbolic_link_is_relative_to_its_folder_and_a_hard_link_to_the_archive(tmp_path):
    for kind, leads_out in ((tarfile.SYMTYPE, False), (tarfile.LNKTYPE, True)):
        with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
            link = tarfile.TarInfo('folder/a.jpg')
            link.type, link.linkname = kind, '../b.jpg'
            archive.addfile(link)
        if leads_out:
            with pytest.raises(ValueError, match='outside'):
                list(tar_members(tmp_path / 'x.tar'))
        else:
            assert list(tar_members(tmp_path / 'x.tar')) == []


def test_devices_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            device = tarfile.TarInfo('a.jpg')
            device.type = kind
            archive.addfile(device)
    assert list(tar_members(tmp_path / 'x.tar')) == []


def test_every_cut_of_an_archive_is_noticed(tmp_path, write_tar):
    path = tmp_path / 'x.tar'
    write_tar(path, {'a.jpg': b'a' * 600, 'b.jpg': b'b' * 512, 'c.jpg': b''})
    whole = path.read_bytes()
    members = list(tar_members(path))
    end = members[-1][1]  # from here on zeros
    for length in [*range(0, end, 100), 512, 1024, 1536, 2048, 2560, end, end + 100]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r'x\.tar is not a whole uncompressed tar archive.*Download it again'):
            list(tar_members(path))
    path.write_bytes(whole[:end + 512])
    assert list(tar_members(path)) == members
    path.write_bytes(whole[:1536] + b'\xff' * 512 + whole[2048:])
    with pytest.raises(ValueError, match='cut off or damaged at byte 1536'):
        list(tar_members(path))


@pytest.mark.parametrize('change', [
    lambda data: data[:1536] + bytes(512) + data[2048:],  # the header of b.jpg
    lambda data: data + data,  # two archives one after the other
    lambda data: data + b'behind the end'])
def test_data_behind_zeros_are_no_end(tmp_path, write_tar, change):
    path = tmp_path / 'x.tar'
    write_tar(path, {'a.jpg': b'a' * 600, 'b.jpg': b'b' * 512, 'c.jpg': b''})
    members = list(tar_members(path))
    path.write_bytes(change(path.read_bytes()))
    found = tar_members(path)
    with pytest.raises(DamagedTar, match=r'x\.tar.*zeros from byte (1536|3072) on'):
        for member in members + members:
            assert next(found) == member


def test_an_end_of_zeros_that_no_writer_makes(tmp_path, write_tar):
    path = tmp_path / 'x.tar'
    write_tar(path, {'a.jpg': b'a'})
    whole = path.read_bytes()
    assert len(whole) == 10_240
    path.write_bytes(whole + bytes(2048))
    assert [name for name, *_ in tar_members(path)] == ['a.jpg']
    path.write_bytes(whole + bytes(2049))
    with pytest.raises(LongEnd, match=r'x\.tar .*only zeros from byte 1024 on, 11265 bytes'):
        list(tar_members(path))


def test_a_negative_size_does_not_turn_the_reader_back(tmp_path, write_tar):
    path = tmp_path / 'x.tar'
    write_tar(path, {'a.jpg': b'a'})
    header = bytearray(path.read_bytes()[:512])
    header[124:136] = b'\xff' * 10 + b'\xfc\x00'  # -1024 in base 256
    header[148:156] = b'%06o\0 ' % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(ValueError, match=r'x\.tar is'):
        list(tar_members(path))


def test_what_may_not_be_read_is_named_with_the_remedy(tmp_path, write_tar, monkeypatch):
    path = tmp_path / 'x.tar'
    write_tar(path, {'a.jpg': b'a'})

    def refuse(file, *args, **kwargs):
        raise PermissionError(13, 'Permission denied', str(file))

    monkeypatch.setattr('builtins.open', refuse)
    with pytest.raises(PermissionError, match=r'make it readable.*x\.tar'):
        list(tar_members(path))


def test_other_files_are_refused(tmp_path, write_tar):
    write_tar(tmp_path / 'x.tar', {'a.jpg': b'first' * 1000})
    (tmp_path / 'z.tar').write_bytes(gzip.compress((tmp_path / 'x.tar').read_bytes()))
    with pytest.raises(ValueError, match=r'z\.tar is not a whole uncompressed tar'):
        list(tar_members(tmp_path / 'z.tar'))


def test_cut_or_missing_archive_is_a_bad_sample(tmp_path):
    (tmp_path / 'x.tar').write_bytes(b'short')
    with pytest.raises(BadSample, match='ends before byte 12'):
        TarReader().bytes_at(tmp_path / 'x.tar', 2, 10)
    with pytest.raises(BadSample, match='No such file'):
        TarReader().bytes_at(tmp_path / 'y.tar', 0, 1)


def test_reader_survives_pickling_and_forking(tmp_path):
    (tmp_path / 'x.tar').write_bytes(bytes(range(100)))
    reader = TarReader()
    assert reader.bytes_at(tmp_path / 'x.tar', 3, 2) == b'\x03\x04'
    assert pickle.loads(pickle.dumps(reader)).bytes_at(tmp_path / 'x.tar', 5, 1) == b'\x05'
    with multiprocessing.get_context('fork').Pool(2) as pool:
        parts = pool.starmap(reader.bytes_at, [(tmp_path / 'x.tar', start, 10) for start in range(0, 90, 10)])
    assert b''.join(parts) == bytes(range(90))
    assert reader.bytes_at(tmp_path / 'x.tar', 3, 2) == b'\x03\x04'
