"""Common slips end a training run, and the shell scripts, with one line that says what to do."""

import os
import subprocess
import sys

import pytest

from dual_loop_command.train import COMMAND

SCRIPTS = ('install', 'quickstart', 'dist_train', 'dist_eval', 'run_tests')


@pytest.fixture
def refused(checkout, monkeypatch, tmp_path, capsys):
    """Train from a shipped config in this process; gives the one line, and sees that nothing was begun."""
    pytest.importorskip('xtuner')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', sys.argv)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def call(config: str, *options: str, work_dir: str = 'work') -> str:
        capsys.readouterr()
        path = checkout / 'configs' / config
        assert COMMAND.main_of('train.py', [str(path), '--work-dir', work_dir, *options]) == 1
        assert not list(tmp_path.glob('work/*.py'))
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('train: ')]
        assert len(said) == 1
        return said[0]

    return call


@pytest.mark.parametrize(('setting', 'says'), [
    ('train_cfg.surgery.rule=pcgrd', "rule=pcgrd: unknown surgery rule 'pcgrd'; there are orthogonal"),
    ('model.tau=abc', "model.tau='abc': a number"),
    ('model.tau.x=5', '--cfg-options model.tau.x=5: '),
    ('model.teacher=emaa', "model.teacher='emaa' is unknown: use 'ema'"),
    ('train_dataloader.batch_size=0', 'train_dataloader.batch_size=0 is too small: use a whole number from 1 on'),
    ('val_dataloader.num_workers=-1', 'val_dataloader.num_workers=-1 is too small'),
    ('train_dataloader.num_workers=0', 'set train_dataloader.persistent_workers=False too'),
    ('train_cfg.loop2_dataloader.num_workers=0', 'set train_cfg.loop2_dataloader.persistent_workers=False too'),
    ('model.type=DualLopModel', 'DualLopModel is not in the mmengine::model registry'),
])
def test_typos_in_values(refused, setting, says):
    assert says in refused('dual_loop_tiny.py', '--cfg-options', setting)


def test_typos_in_options_and_files(refused, checkout):
    assert '--deepspeed zero9: there is no such file, and the names are zero1, zero2' in refused(
        'dual_loop_tiny.py', '--deepspeed', 'zero9')
    assert 'README.md is no config: configs are Python files' in refused('../README.md')
    assert 'is a folder, not a config file' in refused('.')
    assert 'there is no config file' in refused('dual_loop_3b.py')


def test_weights_that_are_not_there(refused, checkout):
    if (checkout / 'pretrained/Sa2VA-4B').exists():
        pytest.skip('they are')
    said = refused('dual_loop_4b.py')
    assert "model.base.pretrained is 'pretrained/Sa2VA-4B'" in said
    assert f'`hf download ByteDance/Sa2VA-4B --local-dir {checkout}/pretrained/Sa2VA-4B`' in said
    assert 'or set model.base.pretrained to where it is' in said


def test_a_target_that_cannot_be_written(refused):
    said = refused('dual_loop_tiny.py', work_dir='/proc/run')
    assert 'cannot be written to /proc/run: ' in said and 'Choose another --work-dir' in said


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_of_the_shell_scripts(checkout, name, tmp_path):
    """It is the comment at their head, and installs nothing."""
    done = subprocess.run([checkout / f'tools/{name}.sh', '--help'], capture_output=True, text=True, cwd=tmp_path,
                          env=dict(PATH=os.environ['PATH']), timeout=60)
    assert done.returncode == 0 and not done.stderr
    head, *rest = done.stdout.splitlines()
    assert head and f'  tools/{name}.sh' in done.stdout and 'set -euo' not in done.stdout
    assert not any(line.startswith('#') for line in rest) and not list(tmp_path.iterdir())


def test_install_takes_no_arguments(checkout):
    done = subprocess.run([checkout / 'tools/install.sh', '--yes'], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == 'install.sh: takes no arguments, got --yes; --help says more\n'
