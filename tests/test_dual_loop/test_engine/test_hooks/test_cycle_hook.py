"""A run with the hook is the run without it; figures, stops and resumes on one process and two."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from dual_loop.datasets import RefCOCODataset, SAVPairDataset
from dual_loop.demo import make_demo_data
from dual_loop.engine.hooks import CycleHook, cycle_hook
from dual_loop.engine.resume import latest_checkpoint
from dual_loop.evaluation.cycle_probe import Probe
from dual_loop.stop import StopAgreed, StopSignal

OBJECTS = 5


@pytest.fixture(scope='session')
def pairs_root(tmp_path_factory):
    root, draw = tmp_path_factory.mktemp('pairs'), np.random.default_rng(0)
    for name in range(OBJECTS):
        masks = np.zeros((2, 50, 60), bool)
        masks[0, 5:20, 3 * name : 30] = masks[1, 30:40, 20:50] = True
        frames = draw.integers(0, 256, (2, 50, 60, 3), dtype=np.uint8)
        np.savez(root / f'masklet_data_{name:05d}.npz', frame1=frames[0], frame2=frames[1], mask1=masks[0],
                 mask2=masks[1])
    return root


# -- the hook alone ------------------------------------------------------------------------------------------------


def make_runner(model, steps: int = 0, stop: StopSignal | None = None) -> SimpleNamespace:
    """As much of a runner as the hook asks for; ``written`` collects what the visualizer gets."""
    written = []
    visualizer = SimpleNamespace(add_scalars=lambda figures, step: written.append((step, figures)))
    return SimpleNamespace(model=model, iter=steps, message_hub=MessageHub(f'cycle{id(written)}'), written=written,
                           train_loop=SimpleNamespace(stop=stop), visualizer=visualizer)


@pytest.fixture
def make_hook(pairs_root):
    def make(**options) -> CycleHook:
        defaults = dict(interval=2, num_samples=OBJECTS, datasets=[SAVPairDataset(pairs_root)], batch_size=2)
        return CycleHook(**defaults | options)

    return make


@pytest.fixture
def model(build_loops):
    return build_loops().train()


def state(model) -> list:
    return [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), torch.is_grad_enabled(),
            [module.training for module in model.modules()],
            [(p.data_ptr(), p.requires_grad, p.clone(), None if p.grad is None else p.grad.clone())
             for p in model.parameters()]]


def assert_equal(one, other) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        [assert_equal(*both) for both in zip(one, other)]
    else:
        assert one == other


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_it_leaves_everything_as_it_was(build_loops, make_hook, dtype):
    model = build_loops(base=dict(dtype=dtype, lora=dict(r=2, alpha=4, dropout=0.5)))
    model.train()
    for parameter in model.trainables().values():
        parameter.grad = torch.ones_like(parameter)
    before = state(model)
    hook, runner = make_hook(weights=('student', 'teacher'), protocol='forced'), make_runner(model)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    assert_equal(state(model), before)
    (step, student), (_, teacher) = runner.written
    assert step == 0 and student.keys() == {
        f'cycle/{name}' for name in (
            'generated_iou', 'shuffled_iou', 'empty_iou', 'generated_paired_iou', 'shuffled_paired_iou',
            'empty_paired_iou', 'no_seg_rate', 'caption_len', 'distinct_1', 'distinct_2', 'hit_max_len',
            'duplicates', 'empty')}
    assert student['cycle/generated_iou'] > 0 and student['cycle/no_seg_rate'] == 0
    # The teacher starts as the student.
    assert teacher == {name.replace('cycle', 'cycle_teacher'): value for name, value in student.items()}


def test_descriptions_are_scored_where_there_are_human_words(model, make_hook, monkeypatch):
    sentences = [f'the {word} thing on the left side' for word in ('red', 'green', 'blue', 'round', 'tall')]
    monkeypatch.setattr(Probe, 'caption', lambda self, place: sentences[place])
    said = sentences[:4] + ['nothing of the kind']
    monkeypatch.setattr(cycle_hook, 'describe', lambda predictor, batch, tokens: [
        dict(place=each.place, text=said[each.place], ended=True, problem='') for each in batch.objects])
    hook, runner = make_hook(), make_runner(model)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    # CIDEr of a sentence against itself is 10, of one without a common word 0.
    assert runner.written[0][1]['cycle/cider'] == pytest.approx(10 * 4 / OBJECTS)


def test_descriptions_of_demo_data_are_compared_with_the_scene(model, make_hook, monkeypatch, tmp_path):
    root = make_demo_data(tmp_path / 'demo', images=4, workers=1, progress=False, sources=['sav', 'refcoco'], world='b',
                          split='val')
    datasets = [SAVPairDataset(root / 'sav'), RefCOCODataset(root / 'ref_seg', split='val')]
    scenes = [json.loads(line) for part in ('sav', 'ref_seg/refcoco')
              for line in (root / part / 'scenes.jsonl').read_text().splitlines()]
    things = [item for scene in scenes for item in scene['objects'] if item['name'] is not None]
    # Objects are probed in the order of their scenes.
    said = [f'A {thing["size"]} {thing["texture"]} {thing["colour"]} {thing["shape"]}.' for thing in things]
    said[0] = 'A gnarled thing.'
    monkeypatch.setattr(cycle_hook, 'describe', lambda predictor, batch, tokens: [
        dict(place=each.place, text=said[each.place], ended=True, problem='') for each in batch.objects])
    hook, runner = make_hook(datasets=datasets, num_samples=50), make_runner(model)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    figures = runner.written[0][1]
    assert figures['cycle/accuracy_all_four'] == figures['cycle/accuracy_shape'] == 1 - 1 / len(things)
    assert figures['cycle/unknown_words'] == 1 / (5 * len(things) - 2) and 'cycle/accuracy_new_names' in figures


def test_the_teacher_describes_with_its_own_weights(model, make_hook):
    model.teacher.set_values({name: torch.zeros_like(value) for name, value in model.teacher.values.items()})
    hook, runner = make_hook(weights=('teacher', 'student')), make_runner(model)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    (_, teacher), (_, student) = runner.written
    assert teacher['cycle_teacher/distinct_1'] != student['cycle/distinct_1']


def test_it_measures_every_interval_and_at_the_end_but_never_twice(model, make_hook, monkeypatch):
    hook, runner = make_hook(), make_runner(model)
    monkeypatch.setattr(hook, '_measure', lambda *_: dict(generated_iou=runner.iter / 10))
    hook.before_train(runner)
    for runner.iter in range(5):
        hook.before_train_iter(runner, runner.iter)
    runner.iter = 5
    hook.after_train(runner)
    hook.after_train(runner)  # as a resumed run that had nothing left to do
    assert runner.written == [(step, {'cycle/generated_iou': step / 10}) for step in (0, 2, 4, 5)]
    assert runner.message_hub.get_scalar('cycle/generated_iou').data[0].tolist() == [0.0, 0.2, 0.4, 0.5]


def test_a_stop_ends_it_at_the_next_token(model, make_hook, monkeypatch):
    with StopSignal() as stop:
        hook, runner = make_hook(), make_runner(model, stop=stop)
        hook.before_train(runner)
        polls, prepared = [], []
        poll, prepare = stop.poll, hook._probe.prepare
        monkeypatch.setattr(hook._probe, 'prepare', lambda image: prepared.append(image) or prepare(image))

        def requested_at_the_third():
            polls.append(len(polls))
            stop.requested = len(polls) >= 3
            poll()

        monkeypatch.setattr(stop, 'poll', requested_at_the_third)
        before = state(model)
        with pytest.raises(StopAgreed):
            hook.before_train_iter(runner, 0)
        assert_equal(state(model), before)
        assert len(polls) == 3 and len(prepared) == 2 and not runner.written, 'it went on to the next batch'


def test_what_makes_no_sense_is_refused(build_base, model, make_hook, pairs_root):
    with pytest.raises(ValueError, match='weights of CycleHook must be some of student, teacher'):
        make_hook(weights=('average', ))
    with pytest.raises(ValueError, match='at least 1, got 0'):
        make_hook(interval=0)
    with pytest.raises(ValueError, match='VideoLLaVASAMModel has no teacher'):
        make_hook(weights=('teacher', )).before_train(make_runner(build_base()))
    with pytest.raises(ValueError, match='1 objects'):
        make_hook(num_samples=1).before_train(make_runner(model))


# -- real runs -----------------------------------------------------------------------------------------------------

#: The stop after step 2 has to save the state itself.
RUN = dict(steps=4, batch_size=2, dropout=0.2, checkpoint_interval=3)


@pytest.fixture(scope='module')
def runs(launch_cases, pairs_root, tmp_path_factory):
    pytest.importorskip('xtuner')
    pytest.importorskip('deepspeed')
    out = tmp_path_factory.mktemp('cycle')
    # The forced answer, since random weights never say [SEG].
    cycle = dict(interval=2, num_samples=OBJECTS, batch_size=2, weights=['student', 'teacher'], protocol='forced',
                 datasets=[dict(type='SAVPairDataset', data_root=str(pairs_root))])

    def cases(mode: str, rank: int) -> list[dict]:
        case = RUN | dict(mode=mode)
        return [dict(case, name=f'{mode}-without'), dict(case, name=f'{mode}-with', cycle=cycle),
                dict(case, name=f'{mode}-stopped', cycle=cycle,
                     fault=dict(name='TERM', place='cycle', step=2, rank=rank)),
                dict(case, name=f'{mode}-rest', cycle=cycle, resume=f'{mode}-stopped/iter_2.pth')]

    launch_cases(out, (cases('plain', 0), 1), (cases('ddp', 1), 2))
    return out


def record(out, name: str, rank: int = 0) -> dict:
    return torch.load(out / name / f'rank{rank}' / 'record.pt', weights_only=True)


def written(out, name: str) -> dict[int, dict[str, float]]:
    """Step -> figures of the hook."""
    figures: dict[int, dict[str, float]] = {}
    for file in sorted((out / name).rglob('scalars.json')):
        for line in map(json.loads, file.read_text().splitlines()):
            found = {key: value for key, value in line.items() if key.startswith('cycle')}
            if found:
                figures.setdefault(line['step'], {}).update(found)
    return figures


@pytest.mark.parametrize('mode, processes', [('plain', 1), ('ddp', 2)])
def test_a_run_with_it_ends_with_the_same_weights(runs, mode, processes):
    for rank in range(processes):
        without, with_it = (record(runs, f'{mode}-{name}', rank) for name in ('without', 'with'))
        assert with_it['scalars'] == without['scalars']
        for part in ('final', 'ema', 'exp_avg'):
            assert_equal(list(with_it[part].values()), list(without[part].values()))
    assert sorted(written(runs, f'{mode}-with')) == [0, 2, 4] and not written(runs, f'{mode}-without')


def test_two_processes_measure_what_one_does(runs):
    """Before training, where their weights are the same."""
    alone, shared = (written(runs, f'{mode}-with')[0] for mode in ('plain', 'ddp'))
    assert alone == shared and len({alone[f'cycle/{name}_iou'] for name in ('generated', 'shuffled', 'empty')}) == 3


@pytest.mark.parametrize('mode, processes', [('plain', 1), ('ddp', 2)])
def test_sigterm_inside_leaves_a_state_that_continues_exactly(runs, mode, processes):
    for rank in range(processes):
        assert (runs / f'{mode}-stopped' / f'rank{rank}' / 'status').read_text() == '143'
        whole, rest = (record(runs, f'{mode}-{name}', rank) for name in ('with', 'rest'))
        assert rest['scalars'] == whole['scalars'][2:]
        for part in ('final', 'ema', 'exp_avg'):
            assert_equal(list(rest[part].values()), list(whole[part].values()))
    assert latest_checkpoint(runs / f'{mode}-stopped').name == 'iter_2.pth'
    assert sorted(written(runs, f'{mode}-stopped')) == [0]
    assert written(runs, f'{mode}-rest') == {step: written(runs, f'{mode}-with')[step] for step in (2, 4)}
