"""Lines of the log from recorded scalars."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from dual_loop.engine.hooks import ProgressLine
from dual_loop.models.dual_loop_model import build_loops


@pytest.fixture
def runner(request):
    hub = MessageHub(request.node.name)
    model = torch.nn.Module()
    model.loops = build_loops({})
    return SimpleNamespace(message_hub=hub, model=model, iter=9, max_iters=300, _train_loop=object(),
                           val_dataloader=range(4), train_dataloader=range(4))


def test_training_shows_the_mean_of_the_last_steps(runner):
    for step in range(10):
        for name, value in {'loop1/loss': 1.0, 'loop1/mask': float(step), 'loop2/caption': 2.0, 'cosine': -0.25,
                            'seconds/teacher': 0.5, 'lr': float(step)}.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
    tag, line = ProgressLine(window_size=2).get_log_after_iter(runner, 9, 'train')
    assert tag['loop1/mask'] == 8.5 and tag['lr'] == 9.0
    assert line == 'step  10/300 | loop 1: mask 8.500 | loop 2: caption 2.000 | cos -0.25 | s: teacher 0.50'


def test_a_validation_shows_its_own_figures_without_times(runner):
    for ciou in (0.25, 0.75):
        for name, value in {'time': 3.0, 'data_time': 1.0, 'held_out/giou': 0.5, 'held_out/ciou': ciou,
                            'generated/ciou': 0.125, 'accuracy': 1.0}.items():
            runner.message_hub.update_scalar(f'val/{name}', value)
    runner.message_hub.update_scalar('train/loss', 7.0)
    tag, line = ProgressLine(window_size=5).get_log_after_epoch(runner, 4, 'val')
    assert tag == {'held_out/giou': 0.5, 'held_out/ciou': 0.75, 'generated/ciou': 0.125, 'accuracy': 1.0}
    assert line == ('step   9/300 | held_out: giou 0.500 ciou 0.750 | generated: ciou 0.125 | val: accuracy 1.000')
