"""The command on pairs of frames and its table."""

import importlib.util
import json
import os
import subprocess
from argparse import ArgumentParser

import numpy as np
import pytest

from dual_loop.evaluation.tasks import cycle_sources
from dual_loop_command.evaluate import CYCLE_TASK

CONFIG = """
from dual_loop.datasets import SAVPairDataset
from xtuner.dataset import ConcatDataset
pairs = dict(type=SAVPairDataset, data_root='{root}')
train_dataloader = dict(dataset=dict(type=ConcatDataset, datasets=[
    pairs, dict(type=SAVPairDataset, data_root='{root}', layout='npz'),
    dict(type=SAVPairDataset, data_root='{root}', name='half', max_samples=3),
    dict(type=SAVPairDataset, data_root='{root}/nowhere', name='absent')]))
val_dataloader = dict(dataset=dict(type=SAVPairDataset, data_root='{root}/more'))
"""


@pytest.fixture(scope='module')
def tool(checkout):
    spec = importlib.util.spec_from_file_location('eval_cycle', checkout / 'tools/eval_cycle.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp('cycle'), np.random.default_rng(0)
    for root, count in ((folder / 'sav', 6), (folder / 'sav/more', 2)):
        root.mkdir()
        for name in range(count):
            masks = np.zeros((2, 50, 60), bool)
            masks[0, 5:20, 3 * name : 30] = masks[1, 30:40, 20:50] = True
            frames = random.integers(0, 256, (2, 50, 60, 3), dtype=np.uint8)
            np.savez(root / f'masklet_data_{name:05d}.npz', frame1=frames[0], frame2=frames[1], mask1=masks[0],
                     mask2=masks[1])
    file = folder / 'pairs.py'
    file.write_text(CONFIG.replace('{root}', str(folder / 'sav')))
    return file


def arguments(*texts: str):
    return CYCLE_TASK.fill(ArgumentParser(), 'cycle').parse_args(texts)


def without_timing(path) -> dict:
    results = json.loads(path.read_text())
    assert results.pop('timing')['seconds'] > 0
    return results


def test_two_processes_write_what_one_writes(tool, checkout, config, tmp_path, capsys):
    arguments = [str(checkout / 'assets/tiny'), '--config', str(config), '--max_new_tokens', '8', '--batch-size', '3',
                 '--num-workers', '0', '--source', 'sav', 'half']
    assert tool.main([*arguments, '--out', str(tmp_path / 'one.json')]) == 0
    shown = capsys.readouterr().out
    launched = subprocess.run(
        [checkout / 'tools/dist_eval.sh', 'cycle', arguments[0], '2', *arguments[1:], '--out', tmp_path / 'two.json'],
        text=True, capture_output=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert launched.returncode == 0, launched.stderr
    one, two = (without_timing(tmp_path / f'{name}.json') for name in ('one', 'two'))
    assert one == two
    # Eight pairs in sav, two of them in the folder below; the first three once more.
    assert one['counts'] == dict(images=11, sentences=11 * 3 * 2, objects=11, left_out=0)
    rows = [line.split() for line in shown.splitlines()]
    assert [row[0] for row in rows if row in (['sav'], ['half'], ['all'])] == ['sav', 'half', 'all']
    cells = rows[next(place for place, row in enumerate(rows) if row == ['all']) + 2]
    metrics = one['metrics']
    assert cells == ['generated', *(cell for frame in ('same', 'paired') for cell in (
        '11', *(f'{metrics[f"{name}/generated/{frame}"]:.3f}' for name in ('giou', 'ciou', 'no_seg_rate'))))]
    assert ['true', *'-' * 8] in rows
    assert sum('(IoU ' in line for line in shown.splitlines()) == 3


def test_sources_of_a_config_are_taken_once_and_told_apart(tool, config, capsys):
    sources = cycle_sources(arguments('model', '--config', str(config)))
    assert {name: len(dataset) for name, dataset in sources.items()} == {'sav': 8, 'half': 3, 'sav (held out)': 2}
    assert 'not there: ' in capsys.readouterr().err
    only = cycle_sources(arguments('model', '--config', str(config), '--source', 'sav (held out)'))
    assert list(only) == ['sav (held out)']
    assert not capsys.readouterr().err, 'what is absent does not matter to the others'


def test_mistakes_become_one_line(tool, config, checkout, capsys):
    model = str(checkout / 'assets/tiny')
    assert tool.main([model]) == 1
    assert 'name a config' in capsys.readouterr().err
    assert tool.main([model, '--config', str(config), '--source', 'coco']) == 1
    error = capsys.readouterr().err
    assert 'no source coco; the config has sav, half, sav (held out)' in error and 'nowhere' in error
