"""The numbers of tools/benchmark_index.py agree with each other; how large they are is not tested."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(checkout, tmp_path):
    def run(*args):
        command = [sys.executable, str(checkout / 'tools' / 'benchmark_index.py'), '--folder', str(tmp_path), *args]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_counts_and_memory_are_consistent(run, tmp_path):
    done = run('--scale', '0.0005', '--cold', '--out', str(tmp_path / 'report.json'))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['items'] == dict(sav=500, sa1b=50, openimages=1500)
    samples = dict(sav=500, sa1b=50 * 100, openimages=1500)
    for step in ('first', 'second', 'lengths'):
        assert {name: each['result'] for name, each in report[step].items()} == samples
        for each in report[step].values():
            assert each['seconds'] > 0 and each['peak'] >= max(each['before'], each['after']) > 0
    assert report['index_bytes']['sa1b'] > 44 * 5000, 'three whole numbers and five floats a row'
    assert report['workers']['result'] > 0 and report['conditions']['cache'] == 'cold'

    rows = {words[0]: words[1:3] for words in map(str.split, done.stdout.splitlines()) if words}
    assert rows['sa1b'] == ['50', '5000'] and rows['together'] == ['2050', '7000']
    assert [each.name for each in tmp_path.iterdir()] == ['report.json'], 'the stand-ins are removed'


def test_too_little_room_is_said_before_anything_is_written(run, tmp_path):
    done = run('--scale', '1e6')
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert 'choose another --folder or a smaller --scale' in done.stderr.splitlines()[-1]
