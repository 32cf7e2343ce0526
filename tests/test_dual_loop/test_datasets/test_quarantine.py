import errno
import fcntl
import json
import multiprocessing

import pytest
from torch.utils.data import ConcatDataset, Subset

from dual_loop.datasets import SA1BDataset, TooManyBadSamples, set_work_dir
from dual_loop.datasets.quarantine import Quarantine
from llava_sam2.paths import CannotWrite


def test_counts_distinct_samples_and_stops_above_one_percent():
    quarantine = Quarantine('demo', num_samples=2000)
    for number in range(20):
        quarantine.record(f's{number}', 'file', 'broken')
        quarantine.record(f's{number}', 'file', 'met again')
        quarantine.good()
    assert quarantine.count == 20 and {entry['reason'] for entry in quarantine.entries} == {'broken'}
    with pytest.raises(TooManyBadSamples, match='21 of 2000 samples of demo are bad.*file: broken'):
        quarantine.record('s20', 'file', 'broken')


def test_small_sets_may_have_ten():
    quarantine = Quarantine('demo', num_samples=20)
    for number in range(10):
        quarantine.record(f's{number}', 'file', 'broken')
    with pytest.raises(TooManyBadSamples, match='11 of 20'):
        quarantine.record('s10', 'file', 'broken')


def test_stops_after_a_hundred_in_a_row():
    quarantine = Quarantine('demo', num_samples=10**6)
    for _ in range(2):
        for _ in range(99):
            quarantine.record('s', 'file', 'broken')
        quarantine.good()
    for _ in range(99):
        quarantine.record('s', 'file', 'broken')
    with pytest.raises(TooManyBadSamples, match='100 samples in a row'):
        quarantine.record('s', 'file', 'broken')


def test_file_has_each_sample_once_and_is_shared(tmp_path):
    file = tmp_path / 'work' / 'bad_samples.jsonl'
    first, second = Quarantine('demo', 2000), Quarantine('demo', 2000)
    other = Quarantine('other', 2000)
    first.record('early', 'a.jpg', 'broken')
    for quarantine in (first, second, other):
        quarantine.attach(file)
    first.record('s', 'a.jpg', 'broken')
    second.record('s', 'a.jpg', 'broken')
    second.record('t', 'b.jpg', 'empty "mask"\n')
    other.record('s', 'c.jpg', 'broken')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(e['source'], e['sample_id']) for e in lines] == [('demo', 'early'), ('demo', 's'), ('demo', 't'),
                                                              ('other', 's')]
    assert lines[2] == dict(source='demo', sample_id='t', path='b.jpg', reason='empty "mask"\n')
    assert (first.count, second.count, other.count) == (3, 3, 1)


@pytest.mark.parametrize('cut', ['', '{"source": "demo", "sample_id": "h', '\0\0\0', '3', '[]', '{"source": "demo"}'])
def test_half_a_line_is_left_out_and_ended(tmp_path, cut):
    file = tmp_path / 'bad_samples.jsonl'
    first = Quarantine('demo', 2000)
    first.attach(file)
    first.record('s', 'a.jpg', 'broken')
    file.write_text(file.read_text() + cut)
    second = Quarantine('demo', 2000)
    second.attach(file)
    assert [entry['sample_id'] for entry in second.entries] == ['s']
    second.record('t', 'b.jpg', 'broken')
    assert first.count == 2
    third = Quarantine('demo', 2000)
    third.attach(file)
    assert [entry['sample_id'] for entry in third.entries] == ['s', 't']


def test_a_whole_last_line_counts_without_its_end(tmp_path):
    file = tmp_path / 'bad_samples.jsonl'
    file.write_text(json.dumps(dict(source='demo', sample_id='s', path='a', reason='b')))
    quarantine = Quarantine('demo', 2000)
    quarantine.attach(file)
    assert quarantine.count == 1


def test_locks_are_not_needed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    first, second = Quarantine('demo', 2000), Quarantine('demo', 2000)
    for number, quarantine in enumerate((first, second)):
        quarantine.attach(tmp_path / 'bad_samples.jsonl')
        quarantine.record(f's{number}', 'a.jpg', 'broken')
    assert first.count == second.count == 2


def test_a_full_disk_does_not_end_the_run(tmp_path, small_files_only, monkeypatch):
    said = []
    monkeypatch.setattr('dual_loop.datasets.quarantine.print_log', lambda message, *_: said.append(message))
    file = tmp_path / 'bad_samples.jsonl'
    quarantine = Quarantine('demo', 2000)
    quarantine.attach(file)
    file.write_bytes(b'\n' * 99_950)
    for number in range(3):
        quarantine.record(f's{number}', 'a.jpg', 'broken')
    assert quarantine.count == 3
    [warning] = [message for message in said if 'this process keeps its bad samples to itself' in message]
    assert f'{file} cannot be written (File too large)' in warning


def test_a_place_that_cannot_be_written_is_named_at_the_start(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(CannotWrite, match='list of bad samples cannot be written to .*Choose another work_dir'):
        Quarantine('demo').attach(tmp_path / 'file' / 'bad_samples.jsonl')


def record_many(file, start, barrier):
    quarantine = Quarantine('demo', 10**6)
    quarantine.attach(file)
    barrier.wait()
    for number in range(start, start + 40):
        quarantine.record(f's{number}', 'file', 'x' * 200)


def test_limit_holds_over_processes_that_write_at_once(tmp_path):
    file = tmp_path / 'bad_samples.jsonl'
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(3)
    workers = [context.Process(target=record_many, args=(file, start, barrier)) for start in (0, 20, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [json.loads(line)['sample_id'] for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f's{number}' for number in range(80))
    watcher = Quarantine('demo', 7000)
    watcher.attach(file)
    with pytest.raises(TooManyBadSamples, match='80 of 7000'):
        watcher.check()


def test_work_dir_reaches_nested_data_sets(sa1b_root, tmp_path, small):
    parts = [SA1BDataset(sa1b_root, name=name, **small) for name in 'ab']
    set_work_dir(ConcatDataset([parts[0], Subset(parts[1], [0])]), tmp_path)
    assert {part.quarantine.file for part in parts} == {tmp_path / 'bad_samples.jsonl'}


def test_one_name_for_two_folders_in_one_loader_is_refused(sa1b_root, tmp_path, small):
    (tmp_path / 'other').symlink_to(sa1b_root)
    first, second = SA1BDataset(sa1b_root, **small), SA1BDataset(tmp_path / 'other', **small)
    with pytest.raises(ValueError, match="sa1b and .*other have the name 'sa1b' in one loader.*another name="):
        set_work_dir(ConcatDataset([first, second]), tmp_path)
    set_work_dir(ConcatDataset([first, first, SA1BDataset(tmp_path / 'other', name='other', **small)]), tmp_path)


def test_all_bad_is_too_many():
    quarantine = Quarantine('demo', num_samples=2)
    quarantine.record('a', 'file', 'broken')
    with pytest.raises(TooManyBadSamples, match='2 of 2 samples of demo are bad, so that nothing is left; '
                                                'the first one is a, file: broken'):
        quarantine.record('b', 'file', 'lost')


def test_names_that_are_no_utf8_are_written_down(tmp_path):
    quarantine = Quarantine('demo', 2000)
    quarantine.attach(tmp_path / 'bad_samples.jsonl')
    name = b'caf\xe9'.decode('utf-8', 'surrogateescape')
    quarantine.record(name, f'/data/{name}.jpg', f'no {name}')
    entry, = quarantine.entries
    assert entry['sample_id'] == 'caf\\udce9' and json.loads((tmp_path / 'bad_samples.jsonl').read_text()) == entry
