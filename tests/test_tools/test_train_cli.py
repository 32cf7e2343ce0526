"""Stock XTuner trains a toy plugin: the two command lines, their status, what they leave behind, and resuming."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dual_loop.engine import compat

pytest.importorskip('xtuner')
CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = CHECKOUT / 'tests' / 'toy' / 'toy_config.py'


def run(command: list, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command with the interpreter of the tests first on PATH, since `xtuner train` starts plain `python`."""
    environment = os.environ | dict(
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        PYTHONPATH=f'{CHECKOUT / "projects"}{os.pathsep}{CONFIG.parent}',
        VIRTUAL_ENV=sys.prefix,
        CUDA_VISIBLE_DEVICES='',
        OMP_NUM_THREADS='1')
    return subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope='module')
def train():
    """tools/train.py as a module, so that most runs share one interpreter: its imports cost more than the runs."""
    spec = importlib.util.spec_from_file_location('train_command', CHECKOUT / 'tools' / 'train.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def main(train, monkeypatch, tmp_path, request):
    """Run tools/train.py in this process, away from the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', sys.argv)
    monkeypatch.setenv('LOCAL_RANK', '0')
    runs = []

    def call(*arguments, options: tuple = ()):
        runs.append(arguments)
        # mmengine keeps loggers and message hubs by experiment name for the whole process: give every run its own
        name = f'experiment_name={request.node.name.replace("[", "_").replace("]", "")}_{len(runs)}'
        return train.main([*map(str, arguments), '--cfg-options', name, *options])

    return call


def weights(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)['state_dict']


def assert_equal_weights(first: Path, second: Path) -> None:
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def scalars(work_dir: Path) -> dict:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    [events] = work_dir.glob('*/vis_data/events*')
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    return {tag: [event.step for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()['scalars']}


def test_stock_xtuner_trains(tmp_path):
    result = run(['xtuner', 'train', CONFIG, '--work-dir', 'work'], cwd=tmp_path)
    # the status of `xtuner train` says nothing, so look at what it left
    assert (tmp_path / 'work' / 'iter_4.pth').is_file(), result.stderr[-2000:]
    assert scalars(tmp_path / 'work')['loss'] == [1, 2, 3, 4]


def test_stock_xtuner_trains_with_short_deepspeed_name(tmp_path):
    result = run(['xtuner', 'train', CONFIG, '--work-dir', 'work', '--deepspeed', 'zero2_fp32'], cwd=tmp_path)
    assert (tmp_path / 'work' / 'iter_4.pth').is_dir(), result.stderr[-2000:]


def test_status_of_train_py(tmp_path):
    train_py = CHECKOUT / 'tools' / 'train.py'
    failed = run([sys.executable, train_py, CONFIG, '--cfg-options', 'model.fail_at=2'], cwd=tmp_path)
    assert failed.returncode == 1 and 'the toy model was told to fail here' in failed.stderr
    assert (tmp_path / 'work_dirs' / 'toy_config' / 'toy_config.py').is_file()
    missing = run([sys.executable, train_py, 'configs/no_such_config.py'], cwd=tmp_path)
    assert missing.returncode == 1 and missing.stderr.strip().splitlines()[-1].startswith(
        'train: there is no config file configs/no_such_config.py')


def test_resuming_continues_the_same_run(main, tmp_path):
    main(CONFIG, '--work-dir', 'straight')
    main(CONFIG, '--work-dir', 'resumed', options=('train_cfg.max_iters=2', ))
    # two steps are left: a run that started anew would reach its third and fail
    main(CONFIG, '--work-dir', 'resumed', '--resume', 'resumed/iter_2.pth', options=('model.fail_at=3', ))
    assert_equal_weights(tmp_path / 'straight' / 'iter_4.pth', tmp_path / 'resumed' / 'iter_4.pth')
    main(CONFIG, '--work-dir', 'straight', '--resume', options=('train_cfg.max_iters=6', 'model.fail_at=3'))
    assert (tmp_path / 'straight' / 'iter_6.pth').is_file()


def test_resume_without_checkpoint(main, capsys):
    assert main(CONFIG, '--work-dir', 'empty', '--resume') == 1
    assert 'no checkpoint iter_*.pth in empty' in capsys.readouterr().err
    assert main(CONFIG, '--work-dir', 'empty', '--resume', 'empty/iter_9.pth') == 1
    assert 'There is no checkpoint empty/iter_9.pth' in capsys.readouterr().err


def test_dumped_config_trains_again(main, tmp_path):
    main(CONFIG, '--work-dir', 'first')
    main('first/toy_config.py', '--work-dir', 'second')
    assert_equal_weights(tmp_path / 'first' / 'iter_4.pth', tmp_path / 'second' / 'iter_4.pth')


@pytest.mark.parametrize('option, near', [('model.widht=8', 'model.width'), ('randomness.sede=1', 'randomness.seed')])
def test_unknown_option_stops_training(main, option, near, tmp_path, capsys):
    assert main(CONFIG, options=(option, )) == 1
    said, = capsys.readouterr().err.splitlines()
    assert said.startswith(f'train: Unknown setting {option.split("=")[0]}: ') and f'did you mean {near}' in said
    assert not list(tmp_path.iterdir())


def test_loop_refuses_unknown_setting_by_itself(main, monkeypatch, tmp_path):
    """Stock `xtuner train` does not check options first; the loop does, also when the run overwrites its own config."""
    main(CONFIG, '--work-dir', 'first', options=('train_cfg.max_iters=1', ))
    for config in ('first/toy_config.py', CONFIG):
        with pytest.raises(ValueError, match='did you mean train_dataloader.batch_size'):
            compat.train_by_xtuner([str(config), '--work-dir', 'first', '--cfg-options',
                                    'train_dataloader.btch_size=8'])


def test_two_processes(tmp_path):
    """DistributedDataParallel over gloo through tools/dist_train.sh, whose status is the training's."""
    dist_train = CHECKOUT / 'tools' / 'dist_train.sh'
    result = run([dist_train, CONFIG, 2, '--work-dir', 'work'], cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / 'work' / 'iter_4.pth').is_file()
    assert run([dist_train, 'no_such_config.py', 2], cwd=tmp_path).returncode != 0
    assert run([dist_train, CONFIG], cwd=tmp_path).returncode == 2
