"""One optimizer step of the loop against a plain computation of what it should do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader, SequentialSampler

from dual_loop.datasets import collate_samples
from dual_loop.engine.data_order import ResumableBatchSampler
from dual_loop.engine.hooks import TeacherEMAHook
from dual_loop.engine.length_groups import GroupedByLengthSampler
from dual_loop.engine.loop import DualLoopTrainLoop, NonFiniteGradients
from dual_loop.engine.settings_check import check_teacher
from dual_loop.models import CaptionLoop, DualLoopModel, MaskLoop, SupervisedLoop

CAPTION = 'A small red circle with white stripes.'


class Samples(list):
    """A list is a map-style data set."""


@pytest.fixture
def make_loop(build_loops, make_sample, tmp_path, monkeypatch):
    """A loop over fixed samples with plain SGD of rate 1, so that a step shows the combined gradient."""
    # The quarantine file belongs to the project's own data sets.
    monkeypatch.setattr('dual_loop.engine.loop.set_work_dir', lambda dataset, work_dir: None)

    def make(batch_size: int = 2, model=None, workers: int = 0, **options):
        if model is None:
            model = build_loops(denoise_weight=1.0)
            model.base.random_weights = False  # as if they had been loaded
        # Four samples each: masks without captions and one human sentence for loop 1, descriptions for loop 2.
        first = Samples(make_sample(key, caption='red circle' if key == 3 else None, pair=key == 0) for key in range(4))
        second = Samples(make_sample(key + 50, caption=CAPTION, describes=True) for key in range(4))
        loaders = [
            DataLoader(data, batch_sampler=ResumableBatchSampler(SequentialSampler(data), batch_size),
                       collate_fn=collate_samples, num_workers=workers) for data in (first, second)
        ]
        calls = []
        runner = SimpleNamespace(
            cfg=Config({}), model=model, work_dir=str(tmp_path), seed=0, val_loop=None, _resume=False,
            hooks=[TeacherEMAHook()],
            message_hub=MessageHub(f'loop{id(model)}'),
            optim_wrapper=OptimWrapper(torch.optim.SGD(model.trainables().values(), lr=1.0)),
            call_hook=lambda name, **kwargs: calls.append((name, kwargs)), register_hook=lambda hook: None,
        )
        options = dict(max_steps=1, surgery=dict(max_grad_norm=None)) | options
        loop = DualLoopTrainLoop(runner, loaders[0], loaders[1], **options)
        return loop, loaders, calls

    return make


def values(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.trainables().items()}


def plain_gradient(model, mode: str, data, step: int = 0) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.trainables().items())
    loss = model(data, dict(step=step), mode=mode)['loss']
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for name, p, g in zip(names, parameters, grads)}


def is_shared(name: str) -> bool:
    return 'lora_' in name or '.mlp1.' in name


def test_it_does_not_start_where_the_workers_have_no_room(make_loop, monkeypatch):
    loop, loaders, calls = make_loop(workers=1)
    batch = collate_samples(list(loaders[0].dataset)[:2])
    monkeypatch.setattr('dual_loop.datasets.shared_memory.free_shared_memory',
                        lambda: sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor)))
    with pytest.raises(ValueError, match='loop 1 .*1 workers x 2 batches.*loop 2 .*--ipc=host'):
        loop.run()
    assert calls == []


@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_a_step_is_orthogonal_surgery_on_the_mean_gradients(make_loop, accumulative_counts):
    loop, loaders, _ = make_loop(batch_size=4 // accumulative_counts, accumulative_counts=accumulative_counts)
    model = loop.raw_model.train()
    before = values(model)
    whole = [collate_samples(list(loader.dataset)) for loader in loaders]
    g1, g2 = (plain_gradient(model, mode, data) for mode, data in zip(('loop1', 'loop2'), whole))
    loop.run()
    flat1, flat2 = (torch.cat([g[name].flatten() for name in g if is_shared(name)]) for g in (g1, g2))
    coefficient = flat1 @ flat2 / (flat1 @ flat1)
    moved = 0.0
    for name, value in values(model).items():
        expected = g1[name] + 0.5 * (g2[name] - coefficient * g1[name]) if is_shared(name) else g1[name]
        torch.testing.assert_close(before[name] - value, expected, rtol=1e-3, atol=2e-6, msg=name)
        moved = max(moved, float(expected.abs().max()))
    assert moved > 1e-3


def test_a_loop_rests_until_its_first_step(make_loop, build_loops):
    model = build_loops(denoise_weight=1.0, first_step=1)
    model.base.random_weights = False
    loop, loaders, calls = make_loop(batch_size=4, model=model)
    before = values(model.train())
    alone = plain_gradient(model, 'loop2', collate_samples(list(loaders[1].dataset)))
    loop.run()
    for name, value in values(model).items():
        torch.testing.assert_close(before[name] - value, 0.5 * alone[name], rtol=1e-3, atol=2e-6, msg=name)
    loop._max_iters = 2
    loop.run()
    figures = [kwargs['outputs'] for name, kwargs in calls if name == 'after_train_iter']
    assert ['loop1/mask' in each for each in figures] == [False, True] and 'loop2/caption' in figures[0]


def test_both_loops_group_the_samples_of_a_step_by_length(make_loop):
    runner = make_loop()[0].runner
    runner.build_dataloader = Runner.build_dataloader
    data = Samples(range(40))
    data.modality_length = np.arange(1, 41)
    spec = dict(dataset=data, batch_size=2, sampler=dict(type=GroupedByLengthSampler))
    loop = DualLoopTrainLoop(runner, spec, spec | dict(batch_size=4), max_steps=1, accumulative_counts=3)
    # 40 rounded up to whole steps of 6 and of 12.
    assert [len(loader.batch_sampler.sampler) for loader in loop.dataloaders.values()] == [42, 48]


def test_hooks_see_the_figures_of_both_loops(make_loop):
    loop, _, calls = make_loop()
    loop.run()
    names = [name for name, _ in calls]
    assert names == ['before_train', 'before_train_epoch', 'before_train_iter', 'after_train_iter',
                     'after_train_epoch', 'after_train']
    outputs = calls[3][1]['outputs']
    assert {'loop1/mask', 'loop1/dice', 'loop1/answer', 'loop1/denoise', 'loop2/caption', 'loop2/answer', 'cosine',
            'coefficient', 'grad_norm1', 'grad_norm2', 'loop1/caption_len', 'loop1/distinct_1', 'loop1/bridge_entropy',
            *(f'seconds/{phase}' for phase in ('data', 'teacher', 'loop1', 'loop2', 'surgery', 'optimizer'))
            } <= set(outputs)
    assert all(isinstance(value, float) for value in outputs.values())
    assert loop.preview is not None and loop.preview['predicted'].shape == loop.preview['data']['masks2'].shape


def test_agreement_is_the_cosine_with_the_gradient_of_the_batch_before(make_loop):
    loop, loaders, calls = make_loop(max_steps=2, agreement=True)
    loop.runner.optim_wrapper.param_groups[0]['lr'] = 0.0
    model = loop.raw_model.train()
    expected = {}
    for number, loader in enumerate(loaders, 1):
        samples = list(loader.dataset)
        grads = [plain_gradient(model, f'loop{number}', collate_samples(samples[2 * step:2 * step + 2]), step)
                 for step in (0, 1)]
        for suffix, part in ('', ''), ('/lora', 'lora_'), ('/decoder', 'mask_decoder'):
            flat = [torch.cat([grad.flatten() for name, grad in each.items() if part in name]) for each in grads]
            if flat[0].any():
                expected[f'agreement{number}{suffix}'] = float(torch.cosine_similarity(*flat, dim=0))
    loop.run()
    first, second = [kwargs['outputs'] for name, kwargs in calls if name == 'after_train_iter']
    assert not [name for name in first if name.startswith('agreement')]
    found = {name: value for name, value in second.items() if name in expected or name == 'agreement2/decoder'}
    assert found == pytest.approx(expected, abs=1e-3) and len(expected) == 5


def test_clips_after_combining(make_loop):
    loop, _, _ = make_loop(surgery=dict(max_grad_norm=0.01))
    before = values(loop.raw_model)
    loop.run()
    after = values(loop.raw_model)
    norm = sum((after[name] - before[name]).square().sum() for name in before).sqrt()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize('broken', ['loop1', 'loop2'])
def test_a_gradient_that_is_not_finite_skips_the_step(make_loop, broken, monkeypatch):
    loop, _, _ = make_loop(max_steps=2, max_skipped_steps=3)
    model = loop.raw_model
    original = model.loops[broken].forward

    def with_nan(*args, **kwargs):
        output = original(*args, **kwargs)
        return output | dict(loss=output['loss'] * float('nan'))

    monkeypatch.setattr(model.loops[broken], 'forward', with_nan)
    before = values(model)
    loop.run()
    assert loop.iter == 2 and loop.runner.message_hub.get_info('stepped') is False
    assert all(torch.equal(before[name], value) for name, value in values(model).items())


def test_too_many_skipped_steps_end_the_run(make_loop, monkeypatch):
    loop, _, _ = make_loop(max_steps=5, max_skipped_steps=2)
    loop2 = loop.raw_model.loops['loop2']
    original = loop2.forward
    monkeypatch.setattr(loop2, 'forward', lambda *args, **kwargs: original(*args, **kwargs) | dict(
        loss=original(*args, **kwargs)['loss'] * float('inf')))
    with pytest.raises(NonFiniteGradients, match='2 steps in a row'):
        loop.run()


def test_dropout_is_drawn_anew_for_every_step_batch_loop_and_rank(make_loop, monkeypatch):
    seeds = []
    for rank in (0, 1):
        monkeypatch.setattr('dual_loop.engine.loop.get_rank', lambda rank=rank: rank)
        loop, _, _ = make_loop(batch_size=1, max_steps=2, accumulative_counts=2)
        for each in loop.loops.values():
            def noting(*args, original=each.forward, **kwargs):
                seeds.append(torch.initial_seed())
                return original(*args, **kwargs)
            monkeypatch.setattr(each, 'forward', noting)
        loop.run()
    assert len(seeds) == 16 and len(set(seeds)) == 16


def test_positions_are_exact_after_a_cast_of_the_module(make_loop):
    loop, _, _ = make_loop()
    buffers = {name: value.clone() for name, value in loop.raw_model.named_buffers()}
    loop.raw_model.bfloat16()  # as DeepSpeed does before the loop runs
    loop.prepare()
    assert any('inv_freq' in name for name in buffers)
    for name, value in loop.raw_model.named_buffers():
        assert torch.equal(value, buffers[name]), name


@pytest.mark.parametrize('broken', ['loop1', 'loop2'])
def test_a_loss_that_is_not_finite_skips_the_step_although_its_gradient_is(make_loop, broken, monkeypatch):
    loop, _, _ = make_loop()
    model = loop.raw_model
    original = model.loops[broken].forward

    def infinite(*args, **kwargs):
        output = original(*args, **kwargs)
        return output | dict(loss=output['loss'] + float('inf'))

    monkeypatch.setattr(model.loops[broken], 'forward', infinite)
    before = values(model)
    loop.run()
    assert loop.runner.message_hub.get_info('stepped') is False
    assert all(torch.equal(before[name], value) for name, value in values(model).items())


def test_tells_what_both_loops_are_made_of(make_loop, monkeypatch):
    said = []
    monkeypatch.setattr('dual_loop.engine.loop.print_log', lambda text, *_: said.append(text))
    loop, loaders, _ = make_loop()
    loaders[1].dataset.source = 'descriptions'
    loop.prepare()
    _, _, first, second = said[0].splitlines()
    assert first.split() == ['loop', '1', '-', '4', '-', '100.0%', '-', '-']
    assert second.split()[:4] == ['loop', '2', 'descriptions', '4'] and len(said) == 1


def test_the_seed_of_the_run_is_the_models(make_loop):
    """Another seed of the runner changes what every loss draws; the same one changes nothing."""

    def figures(seed):
        loop, _, calls = make_loop()
        loop.runner.seed = seed
        loop.run()
        assert loop.raw_model.base.seed == seed
        [outputs] = [options['outputs'] for name, options in calls if name == 'after_train_iter']
        return [outputs[f'loop1/{name}'] for name in ('mask', 'dice', 'answer', 'denoise')] + [outputs['loop2/answer']]

    first, again, other = (figures(seed) for seed in (11, 11, 12))
    assert first == again
    assert [one == two for one, two in zip(first, other)] == [False] * 5


def test_loops_and_loaders_belong_together(make_loop):
    loop, loaders, _ = make_loop()
    runner = loop.runner
    with pytest.raises(ValueError, match='loop 2 has no data: set train_cfg.loop2_dataloader'):
        DualLoopTrainLoop(runner, loaders[0], max_steps=1).prepare()
    idle = DualLoopTrainLoop(runner, loaders[0], loaders[1], dict(supervised=loaders[1]), max_steps=1)
    with pytest.raises(ValueError, match=r'train_cfg.loop_dataloaders.supervised is set.*\(loop1, loop2\)'):
        idle.prepare()
    with pytest.raises(ValueError, match='are the same loader: set one of them'):
        DualLoopTrainLoop(runner, *loaders, dict(loop2=loaders[1]), max_steps=1)
    with pytest.raises(ValueError, match='train_cfg.max_steps is missing'):
        DualLoopTrainLoop(runner, *loaders)


@pytest.mark.parametrize('broken', ['loop1', 'supervised'])
def test_of_loops_that_share_a_gradient_the_guilty_one_is_named(make_loop, build_loops, monkeypatch, broken):
    model = DualLoopModel(build_loops().base, loops=[MaskLoop(topk=16, max_caption_len=6), CaptionLoop(),
                                                     SupervisedLoop()])
    model.base.random_weights = False
    loop, loaders, _ = make_loop(model=model)
    loop.further_dataloaders['supervised'] = loaders[1]
    original = model.loops[broken].forward
    monkeypatch.setattr(model.loops[broken], 'forward', lambda *args, **kwargs: original(*args, **kwargs) | dict(
        loss=original(*args, **kwargs)['loss'] * float('nan')))
    said = []
    monkeypatch.setattr('dual_loop.engine.loop.print_log', lambda text, *_: said.append(text))
    loop.run()
    [skipped] = [text for text in said if 'is skipped' in text]
    assert f'loss or gradient of {"loop 1" if broken == "loop1" else broken} is not finite' in skipped
    assert ('sample50' in skipped) == (broken == 'supervised')


def test_a_teacher_that_nobody_keeps_is_refused_unless_it_is_meant(make_loop, build_loops):
    loop, *_ = make_loop()
    loop.runner.hooks = []
    with pytest.raises(ValueError, match="loop 1 asks a teacher.*TeacherEMAHook.*model.teacher='frozen'.*'live'"):
        loop.prepare()
    for teacher in ('frozen', 'live'):
        loop, *_ = make_loop(model=build_loops(teacher=teacher))
        loop.runner.hooks, loop.runner._load_from = [], None
        loop.prepare()
    for key, options in dict(teacher=dict(teacher='frozen'), listener=dict(reward_weight=0.1)).items():
        loop, *_ = make_loop(model=build_loops(**options))
        loop.runner._load_from = 'iter_2.pth'
        with pytest.raises(ValueError, match=f"model.{key}='frozen' .*not with those of load_from=iter_2.pth.*export "):
            loop.prepare()
        loop.runner._resume = True
        check_teacher(loop.runner, loop.raw_model)


def test_loops_that_ask_no_teacher_need_none(make_loop, build_base):
    loops = [SupervisedLoop(joins=None), CaptionLoop(max_caption_len=6)]
    loop, *_ = make_loop(model=DualLoopModel(build_base(), loops=loops))
    loop.runner.hooks = []
    loop.prepare()
