"""Settings that the loop cannot honour are refused with the reason."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from dual_loop.checkpoints.files import Trained, write_plain_parts
from dual_loop.engine.settings_check import check_optimizer_settings, check_start


def zero(stage: int, **options) -> dict:
    return dict(strategy=dict(config=dict(zero_optimization=dict(stage=stage, **options))))


def test_zero_3_is_refused_with_the_reason():
    check_start(Config(zero(2)))
    with pytest.raises(ValueError, match='two backward passes.*Use --deepspeed zero2'):
        check_start(Config(zero(3)))


def test_a_schedule_that_ends_before_it_begins():
    check_start(Config(dict(param_scheduler=[dict(end=8), dict(begin=8, end=9)])))
    for end in (8, 5):
        with pytest.raises(ValueError, match=f'^param_scheduler.1 begins at step 8 and ends at {end}: set '):
            check_start(Config(dict(param_scheduler=[dict(end=8), dict(begin=8, end=end)])))
    with pytest.raises(ValueError, match='^param_scheduler.0 begins'):
        check_start(Config(dict(param_scheduler=dict(begin=3, end=2))))


def test_offload_needs_a_gpu(monkeypatch):
    offload = Config(zero(2, offload_optimizer=dict(device='cpu')))
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    check_start(offload)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(ValueError, match='there is no GPU: use --deepspeed zero2'):
        check_start(offload)


def test_a_checkpoint_is_read_in_the_mode_it_was_written_in(tmp_path, monkeypatch):
    torch.save({}, tmp_path / 'iter_2.pth')
    (tmp_path / 'iter_4.pth').mkdir()
    write_plain_parts(tmp_path / 'iter_4.pth', Trained(4, {}, {}, 4, dict(world_size=1)))
    torch.save({}, tmp_path / 'iter_4.pth' / 'zero_pp_rank_0_mp_rank_00_optim_states.pt')

    def start(name: str, resume: bool = True) -> dict:
        return dict(resume=resume, load_from=str(tmp_path / name))

    for resume in (True, False):
        check_start(Config(start('iter_2.pth', resume)))
        check_start(Config(start('iter_4.pth', resume) | zero(2)))
        with pytest.raises(ValueError, match='iter_2.pth was written without --deepspeed and cannot be read with it'):
            check_start(Config(start('iter_2.pth', resume) | zero(2)))
        with pytest.raises(ValueError, match='iter_4.pth was written with --deepspeed and cannot be read without it'):
            check_start(Config(start('iter_4.pth', resume)))
        with pytest.raises(FileNotFoundError, match='no checkpoint .*iter_6.pth'):
            check_start(Config(start('iter_6.pth', resume)))
    (tmp_path / 'iter_8.pth').mkdir()
    write_plain_parts(tmp_path / 'iter_8.pth', Trained(8, {}, {}, 0, {}))  # of a run with mmengine's own loop
    check_start(Config(start('iter_8.pth') | zero(2)))
    monkeypatch.setenv('WORLD_SIZE', '2')
    check_start(Config(start('iter_4.pth', resume=False) | zero(2)))
    with pytest.raises(ValueError, match='cannot be resumed exactly: world_size was 1 and is 2'):
        check_start(Config(start('iter_4.pth') | zero(2)))


def test_a_bare_resume_takes_the_newest_whole_checkpoint(tmp_path):
    """Else mmengine would take whatever last_checkpoint says."""
    torch.save({}, tmp_path / 'iter_2.pth')
    (tmp_path / 'iter_4.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_4.pth'))
    cfg = Config(dict(resume=True, work_dir=str(tmp_path), load_from=None))
    check_start(cfg)
    assert cfg.load_from == str(tmp_path / 'iter_2.pth')
    with pytest.raises(ValueError, match='iter_4.pth is not whole'):  # by its name it is refused
        check_start(Config(dict(resume=True, work_dir=str(tmp_path), load_from=str(tmp_path / 'iter_4.pth'))))
    empty = Config(dict(resume=True, work_dir=str(tmp_path / 'empty')))
    check_start(empty)
    assert not empty.get('load_from')


@pytest.mark.parametrize('prefix', ['', 'bf16_'])
def test_every_rank_looks_for_the_files_of_all(tmp_path, monkeypatch, prefix):
    """A rank that alone misses its own would leave the others waiting."""
    folder = tmp_path / 'iter_4.pth'
    folder.mkdir()
    write_plain_parts(folder, Trained(4, {}, {}, 4, dict(world_size=2)))
    files = [folder / f'{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt' for rank in range(2)]
    for file in files:
        torch.save({}, file)
    monkeypatch.setenv('WORLD_SIZE', '2')
    config = Config(dict(resume=True, load_from=str(folder)) | zero(2))
    check_start(config)
    files[1].unlink()
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        with pytest.raises(FileNotFoundError, match='iter_4.pth has no .*rank_1.*copy the whole folder'):
            check_start(config)


def runner(engine: dict | None = None, **optim_wrapper):
    strategy = SimpleNamespace(config=engine) if engine else SimpleNamespace()
    return SimpleNamespace(cfg=Config(dict(optim_wrapper=optim_wrapper)), strategy=strategy)


def test_deepspeed_does_not_clip_a_second_time():
    engine = dict(gradient_clipping=1.0, gradient_accumulation_steps=1)
    check_optimizer_settings(runner(engine, type='DeepSpeedOptimWrapper'))
    assert engine['gradient_clipping'] == 0.0


@pytest.mark.parametrize(('arguments', 'named'), [
    (dict(type=OptimWrapper, clip_grad=dict(max_norm=1.0)), 'train_cfg.surgery.max_grad_norm'),
    (dict(type=OptimWrapper, accumulative_counts=2), 'train_cfg.accumulative_counts'),
    (dict(engine=dict(gradient_accumulation_steps=2), type='DeepSpeedOptimWrapper'), 'train_cfg.accumulative_counts'),
    (dict(type=AmpOptimWrapper), 'model.base.dtype'),
])
def test_what_the_loop_does_itself_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        check_optimizer_settings(runner(**arguments))
