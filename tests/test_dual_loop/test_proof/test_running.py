"""Runs as processes: a stand-in for tools/train.py takes their place."""

import json

import pytest

from dual_loop.proof.plan import Run
from dual_loop.proof.running import Proof, visible_gpus

TRAIN = '''
import argparse, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
for name in ('config', '--work-dir', '--resume'):
    parser.add_argument(name)
args = parser.parse_args()
work_dir = pathlib.Path(args.work_dir)
began = 0 if args.resume is None else int(pathlib.Path(args.resume).stem.removeprefix('iter_'))
with open(work_dir.parent / 'calls', 'a') as calls:
    print('start', work_dir.name, began, os.environ.get('CUDA_VISIBLE_DEVICES'), file=calls)

def save(*_):
    (work_dir / 'iter_1.pth').touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
arm = work_dir.name.split('-')[0]
if arm == 'bad':
    sys.exit('no such luck')
if arm == 'long' and not began:
    time.sleep(600)
time.sleep(0.3)
log = work_dir / str(began) / 'vis_data/scalars.json'
log.parent.mkdir(parents=True)
log.write_text(json.dumps({'step': 60, 'time': 1.0}) + chr(10) + json.dumps({'step': 60, 'held_out/ciou': 0.5}))
with open(work_dir.parent / 'calls', 'a') as calls:
    print('end', work_dir.name, began, file=calls)
'''


@pytest.fixture
def proof(tmp_path, monkeypatch):
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/train.py').write_text(TRAIN)

    class Dumped:
        def dump(self, path):
            path.write_text('')

    monkeypatch.setattr(Run, 'config', lambda self, root: Dumped())
    monkeypatch.setattr('dual_loop.proof.running.latest_checkpoint', lambda work_dir: next(
        iter(work_dir.glob('iter_*.pth')), None) or (_ for _ in ()).throw(FileNotFoundError()))
    return Proof(tmp_path, tmp_path / 'work', tmp_path / 'results')


def calls(proof):
    return [line.split() for line in (proof.work_dir / 'calls').read_text().splitlines()]


def test_so_many_side_by_side_and_each_once(proof):
    runs = [Run('a', 60), Run('b', 60), Run('c', 60)]
    assert proof.go(runs, jobs=2, seconds=60) == (0, 0)
    assert [each[0] for each in calls(proof)][:2] == ['start', 'start']
    running = 0
    for what, *_ in calls(proof):
        running += 1 if what == 'start' else -1
        assert running <= 2
    assert {path.name for path in proof.results.iterdir()} == {f'{run.name}.json' for run in runs}
    assert json.loads(proof.result(runs[0]).read_text())['after'] == {'held_out/ciou': 0.5}
    before = calls(proof)
    assert proof.go(runs, jobs=2, seconds=60) == (0, 0) and calls(proof) == before


def test_what_is_suspended_goes_on_and_what_fails_is_named(proof, capsys):
    runs = [Run('bad', 60), Run('long', 60)]
    assert proof.go(runs, jobs=2, seconds=1.5) == (1, 1)
    shown = capsys.readouterr().out
    assert f'suspended {runs[1].name}' in shown and 'no such luck' in shown and f'failed    {runs[0].name}' in shown
    assert proof.go(runs[1:], jobs=2, seconds=60) == (0, 0)
    assert ['start', runs[1].name, '1'] in [each[:3] for each in calls(proof)]


def test_runs_are_spread_over_the_gpus(proof, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5')
    assert proof.go([Run(arm, 60) for arm in 'abcd'], jobs=4, seconds=60) == (0, 0)
    assert sorted(each[3] for each in calls(proof) if each[0] == 'start') == ['3', '3', '5', '5']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert visible_gpus() == []
