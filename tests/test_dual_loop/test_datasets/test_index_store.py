import errno
import fcntl
import importlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from dual_loop.datasets import SA1BDataset, index_store
from dual_loop.datasets.index import Table
from dual_loop.datasets.index_store import IndexSource, find_files, load_or_build, walk
from llava_sam2.paths import CannotWrite


@pytest.fixture
def data(tmp_path):
    for folder in ('data/a', 'data/b/c'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / 'one.json').write_text('1')
    (tmp_path / 'table.csv').write_text('x')
    return tmp_path


@pytest.fixture
def make(data, monkeypatch):
    """Open the index of ``data``; ``make.built`` counts how often it was made."""
    monkeypatch.setenv('DUAL_LOOP_INDEX_DIR', str(data / 'indexes'))

    def build():
        make.built += 1
        return dict(samples=Table.of(number=list(range(make.built))))

    def make(**arguments):
        source = IndexSource(files=[data / 'table.csv'], folders=[data / 'data'], arguments=arguments)
        return load_or_build('numbers', source, build)

    make.built = 0
    return make


def test_made_once_and_mapped(make):
    first, second = make(), make()
    assert make.built == 1 and first.digest == second.digest and second.tables['samples']['number'].tolist() == [0]
    assert second.tables['samples'].file.exists()
    make(split='val'), make()
    assert make.built == 2, 'other arguments make another index and leave this one'


@pytest.mark.parametrize('change', [
    lambda root: (root / 'data' / 'b' / 'c' / 'two.json').write_text('2'),
    lambda root: (root / 'data' / 'a' / 'one.json').unlink(),
    lambda root: (root / 'data' / 'd').mkdir(),
    lambda root: (root / 'data' / 'b').rename(root / 'data' / 'e'),
    lambda root: (root / 'table.csv').write_text('longer'),
    lambda root: os.utime(root / 'table.csv', (1, 1)),
])
def test_changed_data_make_a_new_one(make, data, change):
    make()
    change(data)
    assert len(make().tables['samples']) == 2
    make()
    assert make.built == 2


def test_number_of_entries_counts_where_times_are_coarse(make, data):
    make()
    (status, folder) = (os.stat(data / 'data' / 'a'), data / 'data' / 'a')
    (folder / 'two.json').write_text('2')
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    make()
    assert make.built == 2


def test_nothing_half_made_is_used(make, data, monkeypatch):
    make()
    (data / 'data' / 'd').mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Table, 'write', lambda self, file: file.write_bytes(b'half') and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make()
    assert len(make().tables['samples']) == 3, 'built for the second time in vain, so for the third'
    assert [path.suffix for path in (data / 'indexes').iterdir()] == ['']


@pytest.mark.parametrize('damage', [
    lambda folder: (folder / 'index.json').write_text('{"version"'),
    lambda folder: (folder / 'index.json').write_text('{}'),
    lambda folder: (folder / 'samples.arrow').write_bytes((folder / 'samples.arrow').read_bytes()[:-30]),
    lambda folder: (folder / 'samples.arrow').unlink(),
])
def test_a_damaged_index_is_made_anew(make, data, damage):
    make()
    damage(*(path for path in (data / 'indexes').iterdir() if path.is_dir()))
    assert len(make().tables['samples']) == 2 == make.built


def test_an_index_of_another_version_is_made_anew(make, monkeypatch):
    make()
    monkeypatch.setattr(index_store, '_VERSION', -1)
    make()
    assert make.built == 2


def build_slowly(folder, results):
    def build():
        (folder / f'built_{os.getpid()}').touch()
        time.sleep(0.3)
        return dict(samples=Table.of(number=[1, 2, 3]))

    results.put(load_or_build('slow', IndexSource(), build, folder / 'indexes').tables['samples']['number'].tolist())


def test_of_several_processes_one_builds(tmp_path, monkeypatch):
    monkeypatch.delenv('DUAL_LOOP_INDEX_DIR')
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [context.Process(target=build_slowly, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=30) for _ in processes] == [[1, 2, 3]] * 3
    for process in processes:
        process.join()
    assert len(list(tmp_path.glob('built_*'))) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, 'Permission denied', str(self))

    monkeypatch.setenv('DUAL_LOOP_INDEX_DIR', str(tmp_path / 'locked'))
    monkeypatch.setattr(Path, 'mkdir', refuse)
    with pytest.raises(CannotWrite, match='index of x .*locked.*index_dir.*DUAL_LOOP_INDEX_DIR'):
        load_or_build('x', IndexSource(), dict)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(make, data, small_files_only):
    """Refused by the kernel, in the middle of the table."""
    build = dict(samples=Table.of(number=list(range(100_000))))
    with pytest.raises(CannotWrite, match=f'the index of big cannot be written to {data}/indexes: .*Make room'):
        load_or_build('big', IndexSource(), lambda: build)
    assert not list((data / 'indexes').iterdir())


def test_locks_are_not_needed(make, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, 'Operation not supported')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    make(), make()
    assert make.built == 1


def test_a_stored_index_is_opened_where_nothing_can_be_written(make, monkeypatch):
    make()

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, 'Read-only file system', str(path))

    monkeypatch.setattr(Path, 'mkdir', refuse)
    monkeypatch.setattr(os, 'open', refuse)
    make()
    assert make.built == 1


def test_an_unreadable_folder_is_named(data, monkeypatch):
    """Of a folder without permission; root may read everything, so the refusal is played."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('b'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match='make it readable.*data/b'):
        SA1BDataset(data / 'data', optional=True)


def test_find_files_is_sorted_and_follows_links_once(data):
    (data / 'data' / 'a' / 'loop').symlink_to(data / 'data')
    (data / 'elsewhere').mkdir()
    (data / 'elsewhere' / 'linked.json').write_text('1')
    (data / 'data' / 'z').symlink_to(data / 'elsewhere')
    assert find_files(data / 'data', '*.json') == ['a/one.json', 'b/c/one.json', 'z/linked.json']
    assert [count for _, _, count in walk(data / 'data')] == [3, 2, 1, 1, 1]


def test_bad_files_of_a_stored_index_are_told_again(sa1b_root, small):
    (sa1b_root / 'sa_000000' / 'sa_2.json').write_bytes(b'')
    first, second = SA1BDataset(sa1b_root, **small), SA1BDataset(sa1b_root, **small)
    assert first.quarantine.entries == second.quarantine.entries and len(first) == len(second) == 2
    entry, = second.quarantine.entries
    assert 'zero bytes' in entry['reason'] and entry['path'].endswith('sa_2.json')


def test_the_digest_says_whether_two_runs_list_the_same(sa1b_root, small, tmp_path):
    first = SA1BDataset(sa1b_root, **small)
    moved = SA1BDataset(sa1b_root.rename(tmp_path / 'moved'), **small)
    fewer = SA1BDataset(tmp_path / 'moved', max_samples=1, **small)
    assert first.index_digest == moved.index_digest != fewer.index_digest
    file = tmp_path / 'moved' / 'sa_000000' / 'sa_1.json'
    content = json.loads(file.read_text())
    content['annotations'].pop()
    file.unlink()
    file.write_text(json.dumps(content))
    assert SA1BDataset(tmp_path / 'moved', **small).index_digest != first.index_digest


def test_another_way_to_read_makes_a_new_index(sa1b_root, small, tmp_path, monkeypatch):
    """An edited data set of one's own must not find the index that it made before the edit."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    lengths = []
    for count in (1, 3):
        (tmp_path / 'own_reader.py').write_text(f'''
from dual_loop.datasets import SA1BDataset

class Own(SA1BDataset):
    def build_index(self):
        tables = super().build_index()
        return tables | dict(samples=tables['samples'].head({count}))
''')
        monkeypatch.delitem(sys.modules, 'own_reader', raising=False)
        lengths.append(len(importlib.import_module('own_reader').Own(sa1b_root, **small)))
    assert lengths == [1, 3]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    for name in ('one.json', '.a.json', '._one.json', '.git/one.json', '__MACOSX/one.json', '@eaDir/one.json',
                 'Thumbs.db', 'desktop.ini', 'a/one.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(tmp_path, '*.json') == ['a/one.json', 'one.json'] and find_files(tmp_path, '*.db') == []
    assert [(names, count) for _, names, count in walk(tmp_path)] == [(['one.json'], 9), (['one.json'], 1)]
