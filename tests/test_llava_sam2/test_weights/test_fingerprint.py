"""Fingerprints: what changes them, and when the cache holds."""

import hashlib
import json
import os
import struct

import pytest
import torch

from llava_sam2.weights.fingerprint import CACHE, Fingerprint, FingerprintCache, fingerprint


@pytest.fixture
def tensors():
    return {'b': torch.tensor([1.0, -2.0]), 'a': torch.tensor([[3.0]])}


def test_equals_sha256_of_the_written_form(tensors):
    expected = hashlib.sha256(
        b'a (1, 1) torch.float32\n' + struct.pack('<f', 3.0) + b'b (2,) torch.float32\n' + struct.pack('<2f', 1.0, -2.0)
    )
    assert fingerprint(tensors) == expected.hexdigest()


def test_everything_counts(tensors):
    a, b = tensors['a'], tensors['b']
    others = [
        dict(a=a, c=b), dict(a=a), dict(a=a.flatten(), b=b), dict(a=a, b=-b), dict(a=a, b=b.bfloat16()),
        dict(a=a, b=b.view(torch.int32)),
    ]
    assert len({fingerprint(each) for each in [tensors, *others]}) == 7
    strided = torch.stack([b, b], dim=1)[:, 0]
    assert not strided.is_contiguous() and fingerprint(dict(a=a, b=strided)) == fingerprint(tensors)


def test_names_come_sorted():
    digest = Fingerprint()
    digest.update('b', torch.ones(1))
    for name in ('a', 'b'):
        with pytest.raises(ValueError, match='sorted'):
            digest.update(name, torch.ones(1))


@pytest.fixture
def files(tmp_path):
    for name in ('x', 'y'):
        (tmp_path / name).write_text(name)
    return [tmp_path / 'x', tmp_path / 'y']


def test_cache_holds_while_files_stay(files, tmp_path):
    assert FingerprintCache(tmp_path, files).known() is None
    FingerprintCache(tmp_path, files).write('f1')
    FingerprintCache(tmp_path, files, 'lora').write('f2')
    assert FingerprintCache(tmp_path, files[::-1]).known() == 'f1'
    assert FingerprintCache(tmp_path, files, 'lora').known() == 'f2'
    assert FingerprintCache(tmp_path, files[:1]).known() is None
    stat = files[0].stat()
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert FingerprintCache(tmp_path, files).known() is None
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert FingerprintCache(tmp_path, files).known() == 'f1'
    files[0].write_text('longer')
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert FingerprintCache(tmp_path, files).known() is None
    assert [path.name for path in tmp_path.iterdir() if path not in files] == [CACHE]


def test_cache_moves_with_its_folder_and_stays_small(files, tmp_path):
    FingerprintCache(files[0], [files[0]]).write('f1')
    moved = tmp_path.with_name('moved')
    tmp_path.rename(moved)
    assert FingerprintCache(moved / 'x', [moved / 'x']).known() == 'f1'
    for index in range(40):
        FingerprintCache(moved / 'x', [moved / 'x'], str(index)).write(str(index))
    assert len(json.loads((moved / f'.x{CACHE}').read_text())) == 16
    assert FingerprintCache(moved / 'x', [moved / 'x'], '39').known() == '39'
    moved.rename(tmp_path)


@pytest.mark.parametrize('content', ['', '{"a": ', '[1]', '{"a": 1}'])
def test_damaged_cache_is_no_cache(files, tmp_path, content):
    (tmp_path / CACHE).write_text(content)
    FingerprintCache(tmp_path, files).write('f1')
    assert FingerprintCache(tmp_path, files).known() == 'f1'


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop(files, tmp_path):
    (tmp_path / CACHE).mkdir()  # what cannot be replaced by a file, for root neither
    with pytest.warns(UserWarning, match='cannot keep the fingerprint .*computed again at each start'):
        FingerprintCache(tmp_path, files).write('f1')
    assert sorted(path.name for path in tmp_path.iterdir()) == [CACHE, 'x', 'y']
