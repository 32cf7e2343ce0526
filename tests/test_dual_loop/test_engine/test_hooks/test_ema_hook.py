"""The hook that keeps the teacher: it follows steps that happened, and only those."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub

from dual_loop.engine.hooks.ema_hook import TeacherEMAHook


@pytest.fixture
def runner(build_loops, tmp_path):
    return SimpleNamespace(model=build_loops(), work_dir=str(tmp_path), _resume=False, _load_from=None,
                           iter=0, hooks=[LoggerHook(interval=2)], message_hub=MessageHub(f'ema{id(tmp_path)}'))


def step(hook, runner, happened: bool) -> None:
    with torch.no_grad():
        for parameter in runner.model.trainables().values():
            parameter.add_(1.0)
    runner.message_hub.update_info('stepped', happened)
    hook.after_train_iter(runner, runner.iter)
    runner.iter += 1


def test_the_teacher_follows_each_step_that_happened(runner):
    hook, teacher = TeacherEMAHook(), runner.model.teacher
    start = {name: value.clone() for name, value in teacher.values.items()}
    hook.before_train(runner)
    step(hook, runner, True)  # decay 1/10: the parameters moved by 1, the average by 0.9
    for name, value in teacher.values.items():
        torch.testing.assert_close(value, start[name] + 0.9)
    step(hook, runner, False)
    assert hook.ema.num_updates == 1
    step(hook, runner, True)  # decay 2/11: of the distance 2.1, the share 9/11
    for name, value in teacher.values.items():
        torch.testing.assert_close(value, start[name] + 0.9 + 2.1 * 9 / 11)


def test_the_distance_is_taken_where_it_is_logged(runner):
    hook = TeacherEMAHook()
    hook.before_train(runner)
    step(hook, runner, True)
    assert 'train/teacher_distance' not in runner.message_hub.log_scalars  # the log is written after every second step
    step(hook, runner, True)  # 0.1 of the first step and 1 of the second are left, of which 9/11 go: see above
    size = sum(parameter.numel() for parameter in runner.model.trainables().values())
    norm = sum(parameter.square().sum() for parameter in runner.model.trainables().values()).sqrt()
    buffer = runner.message_hub.get_scalar('train/teacher_distance')
    assert len(buffer.data[0]) == 1
    assert buffer.current() == pytest.approx(1.1 * 2 / 11 * size**0.5 / norm.item(), rel=1e-4)


def test_averages_are_saved_and_go_on(runner):
    hook, checkpoint = TeacherEMAHook(decay=0.5), {}
    hook.before_train(runner)
    for _ in range(3):
        step(hook, runner, True)
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint['ema']['num_updates'] == 3
    assert checkpoint['ema']['values'].keys() == runner.model.trainables().keys()
    again = TeacherEMAHook(decay=0.5)
    again.before_train(runner)
    again.ema.load_state_dict(checkpoint['ema'])
    for name, value in again.ema.values.items():
        assert torch.equal(value, hook.ema.values[name]), name
