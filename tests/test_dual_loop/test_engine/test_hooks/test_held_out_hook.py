"""Held-out figures of real runs of a one-weight model."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner, IterBasedTrainLoop, Runner, ValLoop
from mmengine.visualization import LocalVisBackend, Visualizer

import dual_loop  # noqa: F401  (makes checkpoints readable with weights_only=True)
from dual_loop.engine.hooks import HeldOutHook, ProgressLine


class Weight(BaseModel):
    """Plain SGD of rate 1 takes 1 from the weight, 10 at the start, in every step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(10.0))
        self.validated = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode == 'loss':
            assert self.training
            return dict(loss=self.weight * inputs.mean())
        assert mode == 'predict' and not self.training and not torch.is_grad_enabled()
        self.validated.append(float(self.weight))
        return [self.weight * value for value in inputs]


class MeanMetric(BaseMetric):
    default_prefix = 'held_out'

    def process(self, data_batch, data_samples):
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))


class Interrupt(Hook):
    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 1:
            raise KeyboardInterrupt


class Ones(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


@pytest.fixture
def make_runner(tmp_path, request):
    made = []

    def make(kind=Runner, steps: int = 4, validates: bool = True, hooks=(), resume: str | None = None,
             **train_cfg) -> Runner:
        loader = dict(dataset=Ones(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1,
                      collate_fn=dict(type='default_collate'))
        validation = dict(val_dataloader=loader, val_cfg=dict(type=ValLoop), val_evaluator=dict(type=MeanMetric))
        made.append(kind)
        return kind(
            Weight(), work_dir=str(tmp_path), experiment_name=f'{request.node.name}_{len(made)}', log_level='WARNING',
            train_dataloader=loader, train_cfg=dict(type=IterBasedTrainLoop, max_iters=steps, **train_cfg),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0)),
            **validation if validates else {},
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                               logger=dict(type='LoggerHook', interval=2, log_metric_by_epoch=False)),
            custom_hooks=[dict(type=HeldOutHook), *hooks], log_processor=dict(type=ProgressLine, window_size=2),
            visualizer=Visualizer(vis_backends=[LocalVisBackend(str(tmp_path / f'vis{len(made)}'))], save_dir='',
                                  name=f'{request.node.name}_{len(made)}'),
            resume=resume is not None, load_from=resume,
        )

    return make


def figures(runner) -> tuple:
    return tuple(runner.message_hub.runtime_info.get(f'held_out_{moment}') for moment in ('before', 'after'))


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_measures_before_and_after(make_runner, kind, tmp_path):
    runner = make_runner(kind, val_interval=2)
    runner.train()
    assert figures(runner) == (dict(mean=10.0), dict(mean=6.0))
    # This loop validates at steps 2 and 4 by itself; step 4 is not measured a second time.
    assert runner.model.validated == [10.0] * 3 + [8.0] * 3 + [6.0] * 3
    [path] = tmp_path.glob('vis*/scalars.json')
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record for record in logged if 'held_out/mean' in record] == [
        {'held_out/mean': value, 'step': step} for value, step in ((10.0, 0), (8.0, 2), (6.0, 4))]
    assert [record['step'] for record in logged if 'loss' in record] == [2, 4]


def test_a_loop_that_does_not_validate_after_the_last_step(make_runner):
    runner = make_runner(val_begin=100)
    runner.train()
    assert figures(runner) == (dict(mean=10.0), dict(mean=6.0)) and len(runner.model.validated) == 6


def test_nothing_to_validate(make_runner):
    runner = make_runner(validates=False)
    runner.train()
    assert float(runner.model.weight.detach()) == 6.0 and figures(runner) == (None, None)


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_a_resumed_run_keeps_the_figures_from_before(make_runner, kind, tmp_path):
    make_runner(kind, steps=2).train()
    resumed = make_runner(kind, resume=str(tmp_path / 'iter_2.pth'))
    resumed.train()
    assert figures(resumed) == (dict(mean=10.0), dict(mean=6.0))
    assert resumed.model.validated == [6.0] * 3, 'measured before training again'


def test_a_checkpoint_without_figures_gives_none(make_runner, tmp_path):
    make_runner(steps=2, validates=False).train()
    resumed = make_runner(resume=str(tmp_path / 'iter_2.pth'))
    resumed.train()
    assert figures(resumed) == (None, dict(mean=6.0)), 'trained weights were taken for those before training'


def test_a_stop_in_the_middle_of_validation_can_be_saved_and_resumed(make_runner, tmp_path):
    """A hook may raise after any batch: at the very beginning, and within training."""
    runner = make_runner(hooks=[dict(type=Interrupt)])
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    runner.save_checkpoint(str(tmp_path), 'stopped.pth')
    assert torch.load(tmp_path / 'stopped.pth', weights_only=True)['meta']['iter'] == 0
    resumed = make_runner(resume=str(tmp_path / 'stopped.pth'))
    resumed.train()
    assert figures(resumed) == (dict(mean=10.0), dict(mean=6.0))

    within = make_runner(hooks=[dict(type=Interrupt)], val_interval=2, resume=str(tmp_path / 'iter_2.pth'))
    with pytest.raises(KeyboardInterrupt):
        within.train()
    assert within.iter == 4
    within.save_checkpoint(str(tmp_path), 'stopped.pth')
    finished = make_runner(resume=str(tmp_path / 'stopped.pth'))
    finished.train()
    assert figures(finished) == (dict(mean=10.0), dict(mean=6.0))


def test_figures_of_another_metric_keep_their_names():
    hook = HeldOutHook()
    infos = {}
    hub = SimpleNamespace(runtime_info=infos, update_info=infos.__setitem__)
    runner = SimpleNamespace(iter=0, message_hub=hub, val_loop=SimpleNamespace(
        run=lambda: hook.after_val_epoch(runner, {'held_out/ciou': 0.5, 'generated/ciou': 0.4})))
    hook.before_train(runner)
    assert infos == dict(held_out_before={'ciou': 0.5, 'generated/ciou': 0.4})
    runner.val_loop.run = lambda: pytest.fail('measured again, although a checkpoint had the figures')
    hook.before_train(runner)
