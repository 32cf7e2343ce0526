"""The benchmark of a step on the tiny model: it measures what it says, the plain way too, and writes nothing else."""

import gzip
import json
import subprocess
import sys

import pytest


@pytest.fixture(scope='module')
def report(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp('benchmark') / 'out' / 'step.json'
    done = subprocess.run(
        [sys.executable, 'tools/benchmark_step.py', 'configs/dual_loop_tiny.py', '--batch-size', '2', '--caption-len',
         '5', '--runs', '2', '--warm-up', '1', '--plain', '--profile', '--json', str(out)],
        cwd=checkout, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'times as fast as the plain way' in done.stdout
    assert 'aten::mm' in out.with_suffix('.profile.txt').read_text()
    trace = json.loads(gzip.decompress(out.with_suffix('.trace.json.gz').read_bytes()))
    assert any(event.get('name') == 'aten::mm' for event in trace['traceEvents'])
    return json.loads(out.read_text())


def test_both_ways_take_the_same_step(report):
    assert (report['rows'], report['caption_len'], report['images']) == (2, 5, dict(loop1=3, loop2=2))
    for way in ('fast', 'plain'):
        found = report[way]
        assert len(found['seconds']) == 2 and found['median'] > 0
        phases = {'encoders', 'teacher', 'language model', 'backward', 'surgery', 'optimizer', 'rest'}
        assert phases <= found['phases'].keys()
        assert found['tokens_per_s'] == pytest.approx(10 / found['phases']['teacher'])
        assert 0 < found['share_of_arithmetic'] < 1 and 0 < found['share_of_bandwidth'] < 1
    assert report['ratio'] == report['plain']['median'] / report['fast']['median']


def test_a_config_of_other_loops_is_refused(checkout):
    done = subprocess.run([sys.executable, 'tools/benchmark_step.py', 'configs/adapt_tiny.py'], cwd=checkout,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'does not train the two loops' in done.stderr
