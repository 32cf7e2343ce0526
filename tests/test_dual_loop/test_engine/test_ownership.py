"""A second run, a damaged checkpoint and a full disk end a real run in one sentence, with nothing half-made."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config

from dual_loop.checkpoints.conversion import convert
from dual_loop.engine import ownership
from dual_loop.engine.ownership import OWNER, WorkDirInUse, check_owned, own_work_dir, owning
from dual_loop.evaluation.loading import load_model
from llava_sam2.claims import STALE, Claim
from llava_sam2.paths import CannotWrite

PAST = Path(__file__).parents[2] / 'past'


@pytest.fixture
def work_dir(tmp_path):
    return tmp_path / 'work'


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    monkeypatch.setattr(ownership, '_claims', {})
    yield
    for claim in ownership._claims.values():
        claim.release()


def settings(work_dir, **more) -> Config:
    return Config(dict(work_dir=str(work_dir)) | more)


def test_the_first_process_of_a_run_owns_the_work_dir(work_dir, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    own_work_dir(settings(work_dir, launcher='pytorch'))
    assert not work_dir.exists()
    check_owned(work_dir)  # nothing that this process would know of
    monkeypatch.setenv('RANK', '0')
    own_work_dir(settings(work_dir, launcher='pytorch'))
    assert json.loads((work_dir / OWNER).read_text())['pid'] == os.getpid()
    own_work_dir(settings(work_dir))  # a further run in this process
    check_owned(work_dir)


def test_a_run_that_was_overtaken_replaces_nothing(work_dir):
    own_work_dir(settings(work_dir))
    long_ago = time.time() - STALE - 10
    os.utime(work_dir / OWNER, (long_ago, long_ago))
    other = Claim(work_dir / OWNER)
    other.take()
    with pytest.raises(WorkDirInUse, match=f'does not own {work_dir} any more .*taken over by process {os.getpid()}'):
        check_owned(work_dir)
    other.release()


class Loop:
    """Of the training loop what ``owning`` sees."""

    def __init__(self, runner):
        self.runner = runner

    @owning
    def run(self):
        self.runner.act()
        return 'model'


def vanished(work_dir) -> OSError:
    return FileNotFoundError(2, 'No such file or directory', f'{work_dir}/vis_data/scalars.json')


@pytest.mark.parametrize('error', [None, SystemExit(143), RuntimeError('out of memory'), OSError(28, 'No space left'),
                                   vanished])
def test_others_may_have_it_afterwards_however_a_run_ends(work_dir, error):
    own_work_dir(settings(work_dir))
    error = error(work_dir) if error is vanished else error

    class Runner:
        def act(self):
            assert (work_dir / OWNER).exists()
            if error is not None:
                raise error

    runner = Runner()
    runner.work_dir = str(work_dir)
    if error is None:
        assert Loop(runner).run() == 'model'
    else:
        kind = CannotWrite if isinstance(error, OSError) else type(error)
        message = f'the run cannot be written to .*: {error.strerror}. Make room' if kind is CannotWrite else str(error)
        with pytest.raises(kind, match=message):
            Loop(runner).run()
    assert not list(work_dir.iterdir())


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(CannotWrite, match='^the run cannot be written to .*: Not a directory. Choose another'):
        own_work_dir(settings(tmp_path / 'file/work'))


# -- the whole command ------------------------------------------------------------------------------------------------

@pytest.fixture
def refused(checkout, monkeypatch, tmp_path, capsys):
    """Call tools/train.py on the past's toy run in this process; gives the sentence that it ends with."""
    pytest.importorskip('xtuner')
    spec = importlib.util.spec_from_file_location('train_command', checkout / 'tools/train.py')
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    monkeypatch.setattr(sys, 'argv', sys.argv)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def call(*options) -> str:
        assert command.main([str(PAST / 'config.py'), *map(str, options)]) == 1
        return capsys.readouterr().err.splitlines()[-1]

    return call


def test_a_second_run_is_refused(refused, work_dir):
    work_dir.mkdir()
    first = Claim(work_dir / OWNER)
    first.take()
    said = refused('--work-dir', work_dir)
    assert said.startswith(f'train: {work_dir} is in use by process {os.getpid()} on host {os.uname().nodename}')
    assert list(work_dir.iterdir()) == [work_dir / OWNER]  # not even its config
    first.release()


@pytest.mark.parametrize('checkpoint', ['iter_2.pth', 'zero2/iter_2.pth/mp_rank_00_model_states.pt'])
def test_a_flipped_bit_is_refused(refused, work_dir, checkpoint, tmp_path):
    """Also in checkpoints without sums; resuming, exporting and evaluating."""
    copy = tmp_path / 'iter_2.pth'
    if folder := checkpoint.startswith('zero2'):
        shutil.copytree(PAST / 'zero2/iter_2.pth', copy)
    else:
        shutil.copy(PAST / checkpoint, copy)
    file = copy / Path(checkpoint).name if folder else copy
    with zipfile.ZipFile(file) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda record: record.file_size))
    data = bytearray(file.read_bytes())
    data[data.index(largest) + len(largest) // 2] ^= 4
    file.write_bytes(data)
    assert f'{file} is damaged' in refused('--work-dir', work_dir, '--resume', copy)
    assert not work_dir.exists()
    work_dir.mkdir()
    copy.rename(work_dir / 'iter_2.pth')
    assert f'no checkpoint in {work_dir} is whole' in refused('--work-dir', work_dir, '--resume')
    if not folder:
        for use in (lambda: convert(PAST / 'config.py', work_dir / 'iter_2.pth', tmp_path / 'out'),
                    lambda: load_model(PAST / 'config.py', work_dir / 'iter_2.pth')):
            with pytest.raises(ValueError, match='iter_2.pth is damaged .*take another checkpoint'):
                use()


def test_a_full_disk_ends_a_run_in_one_sentence(checkout, work_dir):
    """The kernel refuses files of the size of a checkpoint."""
    pytest.importorskip('xtuner')
    command = str(checkout / 'tools/train.py')
    code = ('import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); '
            f'sys.argv[0] = {command!r}; runpy.run_path(sys.argv[0], run_name="__main__")')
    done = subprocess.run([sys.executable, '-c', code, PAST / 'config.py', '--work-dir', work_dir], timeout=300,
                          capture_output=True, text=True, cwd=work_dir.parent,
                          env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == (
        f'train: the checkpoint of step 2 cannot be written to {work_dir}: File too large. Make room there and go '
        'on with --resume; nothing was saved before')
    assert not list(work_dir.glob('iter_*')) and not (work_dir / OWNER).exists()
