"""One step of a run, which leaves nothing behind."""

import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import pytest
from mmengine.config import Config

from dual_loop.engine.dry_run import of_one_step, report, take_one_step

pytest.importorskip('xtuner')


@pytest.fixture
def config(checkout, tmp_path):
    """The tiny run on the data of the demo world, read by the process itself."""
    file = tmp_path / 'config.py'
    cfg = Config.fromfile(checkout / 'configs/dual_loop_tiny.py')
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_cfg.loop2_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.dump(file)
    return file


def leftovers() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob('dual-loop-dry-run-*'))


def test_takes_a_step_and_leaves_the_folder_as_it_was(config, checkout, tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    (work_dir / 'mine.txt').write_text('kept')
    before, there = leftovers(), sorted(tmp_path.rglob('*'))
    done = subprocess.run([sys.executable, checkout / 'tools/train.py', config, '--work-dir', work_dir, '--dry-run'],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for part in ('one step was taken', 'loop1', 'loop2', 'surgery', 'optimizer', 'peak memory of the process'):
        assert part in done.stdout, done.stdout[-3000:]
    assert sorted(tmp_path.rglob('*')) == there and (work_dir / 'mine.txt').read_text() == 'kept'
    assert leftovers() == before


def test_two_processes_say_one_result(config, checkout, tmp_path):
    """It has the peak of the process that needed most, and neither leaves anything."""
    (tmp_path / 'fuller.py').write_text(
        'import os\nfrom dual_loop.engine import dry_run\n'
        'dry_run.peak_memory = lambda: ("process", (2 + 3 * int(os.environ["RANK"])) << 30)\n')
    cfg = Config.fromfile(config)
    cfg.custom_imports.imports.append('fuller')
    cfg.dump(config)
    work_dir, before, there = tmp_path / 'run', leftovers(), sorted(tmp_path.rglob('*'))
    done = subprocess.run(
        [checkout / 'tools/dist_train.sh', config, '2', '--work-dir', work_dir, '--dry-run'], cwd=tmp_path,
        capture_output=True, text=True, env=os.environ | dict(
            OMP_NUM_THREADS='1', PYTHONPATH=f'{checkout / "projects"}:{tmp_path}', PYTHONDONTWRITEBYTECODE='1',
            PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', VIRTUAL_ENV=sys.prefix))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('one step was taken') == done.stdout.count('seconds of the first step') == 1
    assert done.stdout.count('peak memory') == done.stdout.count('peak memory of each process at most: 5.00 GiB') == 1
    assert sorted(tmp_path.rglob('*')) == there and leftovers() == before


def test_faults_are_those_of_a_run(config):
    before = leftovers()
    args = Namespace(resume=None, launcher='none', cfg_options=['model.tow=0.5'], config=str(config), dry_run=True)
    with pytest.raises(ValueError, match=r'model\.tow'):
        take_one_step(args, config, train=None)
    assert leftovers() == before


def test_with_resume_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match='--resume'):
        take_one_step(Namespace(resume='latest'), tmp_path / 'x.py', train=None)


def test_a_failing_step_is_cleaned_up(config, monkeypatch):
    seen = []

    def train(args):
        seen.append(Path(args.work_dir).parent)
        assert Path(args.config).is_file() and not args.dry_run
        raise RuntimeError('broken')

    args = Namespace(resume=None, launcher='none', cfg_options=[], config=str(config), work_dir='mine', dry_run=True)
    with pytest.raises(RuntimeError, match='broken'):
        take_one_step(args, config, train)
    assert args.work_dir == 'mine' and not seen[0].exists()


def test_only_what_a_step_needs_is_left(config):
    cfg = of_one_step(Config.fromfile(config))
    assert cfg.train_cfg.max_steps == 1 and cfg.train_cfg.preview_interval == 0
    assert [str(hook['type']).rpartition('.')[2].strip("'>") for hook in cfg.custom_hooks] == \
        ['TeacherEMAHook', 'DryRunHook']
    assert cfg.default_hooks.checkpoint is None and 'work_dir' not in cfg and cfg.val_dataloader


def test_report_tells_the_fullest_of_all_processes():
    lines = report(dict(loop1=1.5, loop2=2.5), [('GPU', 2 << 30), ('GPU', 3 << 30)])
    assert '4.00' in lines[1] and lines[-1].strip() == 'peak memory of each GPU at most: 3.00 GiB'
    assert 'seconds' not in ' '.join(report({}, [('process', 1 << 30)]))
