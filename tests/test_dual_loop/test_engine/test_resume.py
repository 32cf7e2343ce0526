"""A resumed run must be the one that was interrupted."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from torch.utils.data import ConcatDataset, DataLoader

from dual_loop.checkpoints.files import LATEST
from dual_loop.engine.data_order import ResumableBatchSampler
from dual_loop.engine.resume import (
    changed_settings,
    check_same_run,
    describe_run,
    go_on_as_begun,
    latest_checkpoint,
)
from llava_sam2.model import VideoLLaVASAMModel

PATH = Path('work/iter_4.pth')


class Source(list):
    """A list is a map-style data set."""

    def __init__(self, source: str, length: int, index_digest: str):
        super().__init__(range(length))
        self.source = source
        self.index_digest = index_digest


def describe(seed: int = 0, lengths: tuple = (8, 4), batch_size: int = 2, accumulative_counts: int = 1,
             weights: str = 'abc', content: str = 'a' * 64, **settings) -> dict:
    data = ConcatDataset([Source('sav', lengths[0], content), Source('refcoco', lengths[1], 'b' * 64)])
    loader = DataLoader(data, batch_sampler=ResumableBatchSampler(DefaultSampler(data), batch_size))
    config = Config(dict(lr=1e-3, work_dir='here', resume=False, optim_wrapper=dict(rate=0.1)) | settings)
    return describe_run(config, seed, {'loop 1': loader, 'loop 2': loader}, accumulative_counts, weights)


def test_the_same_run_has_no_differences():
    continued = describe(work_dir='there', resume=True, load_from='x')
    check_same_run(PATH, describe(), continued)
    assert changed_settings(describe(), continued) == []


def test_other_settings_are_shown():
    check_same_run(PATH, describe(), describe(lr=2e-3))
    assert changed_settings(describe(), describe(lr=2e-3)) == ['-lr = 0.001', '+lr = 0.002']


def test_a_changed_schedule_is_said_to_have_no_effect():
    *lines, said = changed_settings(describe(), describe(optim_wrapper=dict(rate=0.2)))
    assert lines == ['-optim_wrapper = dict(rate=0.1)', '+optim_wrapper = dict(rate=0.2)']
    assert 'NO EFFECT' in said and 'load_from' in said


@pytest.mark.parametrize(('change', 'named'), [
    (dict(seed=1), 'seed was 0 and is 1'),
    (dict(batch_size=4), r"batch_size was \{'loop 1': 2"),
    (dict(accumulative_counts=2), 'accumulative_counts was 1 and is 2'),
    (dict(lengths=(8, 5)), 'data was .*refcoco: 4 samples.* and is .*refcoco: 5 samples'),
    (dict(content='c' * 64), 'data was .*sav: 8 samples, index a{12}.* and is .*sav: 8 samples, index c{12}'),
    (dict(weights='def'), 'weights was abc and is def'),
])
def test_what_would_change_the_run_is_refused(change, named):
    with pytest.raises(ValueError, match=f'{PATH} cannot be resumed exactly: {named}.*without --resume'):
        check_same_run(PATH, describe(), describe(**change))


def test_another_world_size_is_refused(monkeypatch):
    before = describe()
    monkeypatch.setattr('dual_loop.engine.resume.get_world_size', lambda: 2)
    with pytest.raises(ValueError, match='world_size was 1 and is 2'):
        check_same_run(PATH, before, describe())


def test_a_checkpoint_of_another_loop_is_refused():
    with pytest.raises(ValueError, match='does not say what it was trained on'):
        check_same_run(PATH, None, describe())


def test_the_latest_is_the_one_noted_or_that_of_the_highest_step(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint iter_'):
        latest_checkpoint(tmp_path)
    for name in ('iter_9.pth', 'iter_10.pth', 'iter_11.pth.partial', 'iter_best.pth'):
        torch.save({}, tmp_path / name)
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'
    # A fresh run in the folder of an older and longer one; the folder may have been moved since.
    (tmp_path / LATEST).write_text('/elsewhere/iter_9.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_9.pth'
    (tmp_path / 'iter_9.pth').unlink()
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'


@pytest.fixture
def said(monkeypatch):
    """What is told beside the result."""
    lines = []
    monkeypatch.setattr('dual_loop.engine.resume.print_log', lambda message, *_: lines.append(message))
    return lines


@pytest.fixture
def work_dir(tmp_path):
    for step in (2, 4, 6, 8):
        torch.save(dict(step=torch.full((100, ), float(step))), tmp_path / f'iter_{step}.pth')
    (tmp_path / LATEST).write_text(str(tmp_path / 'iter_6.pth'))
    return tmp_path


@pytest.mark.parametrize(('note', 'reason'), [
    ('', 'last_checkpoint is empty'), ('\0\0\0\0', 'last_checkpoint is empty'),
    ('/old/iter_7.pth', 'last_checkpoint names iter_7.pth, which is not there')])
def test_a_note_that_is_wrong_is_told_and_passed_over(work_dir, said, note, reason):
    (work_dir / LATEST).write_text(note)
    assert latest_checkpoint(work_dir) == work_dir / 'iter_8.pth'
    assert len(said) == 1 and reason in said[0] and f'Going on from {work_dir}/iter_8.pth' in said[0]


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(work_dir, said):
    assert latest_checkpoint(work_dir).name == 'iter_6.pth' and not said
    for file in (work_dir / 'iter_6.pth', work_dir / 'iter_4.pth'):
        file.write_bytes(file.read_bytes()[:-1000] if '_4' in file.name else b'')
    # Not iter_8.pth, which an earlier run left.
    assert latest_checkpoint(work_dir).name == 'iter_2.pth'
    assert all(f'iter_{step}.pth is not whole' in said[0] for step in (6, 4)) and 'iter_2.pth, the new' in said[0]
    flip(work_dir / 'iter_2.pth')
    with pytest.raises(ValueError, match=r'no checkpoint in .* is whole: .*iter_6.*iter_4.*iter_2.pth is damaged'):
        latest_checkpoint(work_dir)


def flip(file: Path) -> None:
    """Change one bit of the tensor in it."""
    data = bytearray(file.read_bytes())
    data[data.index(b'\x00\x00\x00\x40' * 20) + 3] ^= 1
    file.write_bytes(data)


def test_names_of_another_hook_are_found_by_the_note(work_dir):
    torch.save({}, work_dir / 'epoch_3.pth')
    (work_dir / LATEST).write_text('epoch_3.pth')
    assert latest_checkpoint(work_dir).name == 'epoch_3.pth'


@pytest.mark.parametrize('checkpoint', ['iter_2.pth', 'zero2/iter_2.pth'])
def test_a_run_of_version_0_1_0_goes_on_training_what_it_trained(said, checkout, checkpoint):
    """Its averages and its optimizer state hold masks that a new run freezes."""
    past = checkout / 'tests/past'
    for kind in (VideoLLaVASAMModel, 'VideoLLaVASAMModel', 'llava_sam2.model.VideoLLaVASAMModel'):
        cfg = Config(dict(model=dict(type='DualLoopModel', base=dict(type=kind))))
        go_on_as_begun(past / checkpoint, cfg)
        assert cfg.model.base.train_unused_masks is True
        assert 'as version 0.1.0 did' in said.pop() and not said
    of_others = Config(dict(model=dict(type='ToyModel')))
    go_on_as_begun(past / checkpoint, of_others)
    assert of_others.to_dict() == dict(model=dict(type='ToyModel'))


def test_a_new_run_goes_on_with_what_is_trained_now(said, tmp_path):
    torch.save(dict(ema=dict(values={'base.network.mlp1.1.weight': torch.zeros(1)})), tmp_path / 'iter_2.pth')
    cfg = Config(dict(model=dict(base=dict(type='VideoLLaVASAMModel'))))
    go_on_as_begun(tmp_path / 'iter_2.pth', cfg)
    assert 'train_unused_masks' not in cfg.model.base and not said
