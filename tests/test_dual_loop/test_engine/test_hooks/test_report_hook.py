"""Which log lines belong to a run that was stopped and resumed, and when the page is renewed."""

import json
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from dual_loop.engine.hooks import ReportHook, report_hook
from dual_loop.engine.hooks.report_hook import above_floor, cycle_rows, read_steps


@pytest.fixture
def log(tmp_path):
    """Write a log folder: a record of each step, whose loss tells the folder."""

    def write(name: str, steps, loss: float) -> None:
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        lines = [{'held_out/ciou': 0.5, 'step': 0}]
        lines += [{'loop1/loss': loss, 'lr': 0.1, 'iter': step, 'step': step} for step in steps]
        (folder / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))

    return write


def steps_and_losses(work_dir, log_folders) -> list[tuple[int, float]]:
    return [(record['step'], record['loop1/loss']) for record in read_steps(work_dir, log_folders)
            if 'loop1/loss' in record]


def test_a_resumed_run_is_whole_and_later_folders_win(tmp_path, log):
    log('20260101_000000', range(2, 14, 2), 9.0)  # an earlier run in the same folder
    log('20260102_000000', range(2, 14, 2), 1.0)  # went on to step 12; the checkpoint is of step 6
    log('20260103_000000', range(8, 12, 2), 2.0)  # this one of step 10
    log('20260104_000000', range(12, 16, 2), 3.0)
    folders = [['20260102_000000', 0], ['20260103_000000', 6], ['20260104_000000', 10]]
    assert steps_and_losses(tmp_path, folders) == [
        (2, 1.0), (4, 1.0), (6, 1.0), (8, 2.0), (10, 2.0), (12, 3.0), (14, 3.0)]
    assert steps_and_losses(tmp_path, [['20260104_000000', 10]]) == [(12, 3.0), (14, 3.0)]


def test_what_a_shorter_continuation_took_back_is_gone(tmp_path, log):
    log('a', range(1, 10), 1.0)
    log('b', range(5, 7), 2.0)
    assert steps_and_losses(tmp_path, [['a', 0], ['b', 4]]) == [
        (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0)]


def test_a_missing_folder_is_named(tmp_path, log, monkeypatch):
    log('b', [5, 6], 2.0)
    said = []
    monkeypatch.setattr('dual_loop.engine.hooks.report_hook.print_log', lambda text, *_: said.append(text))
    assert steps_and_losses(tmp_path, [['gone', 0], ['never logged', 4], ['b', 4]]) == [(5, 2.0), (6, 2.0)]
    assert steps_and_losses(tmp_path, [['nothing yet', 0]]) == []
    assert len(said) == 1 and 'gone' in said[0] and 'steps 1 to 4' in said[0]


def test_the_list_of_folders_travels_with_the_message_hub(tmp_path):
    def start(hub: MessageHub, name: str, step: int) -> MessageHub:
        ReportHook().before_train(SimpleNamespace(log_dir=str(tmp_path / name), iter=step, message_hub=hub))
        assert json.loads((tmp_path / name / 'run.json').read_text())['step'] == step
        return hub

    first = start(MessageHub('report first'), 'a', 0)
    resumed = MessageHub('report resumed')
    resumed.load_state_dict(first.state_dict())
    start(resumed, 'b', 4)
    assert resumed.get_info('log_folders') == [['a', 0], ['b', 4]]
    assert first.get_info('log_folders') == [['a', 0]]
    assert start(MessageHub('report afresh'), 'c', 0).get_info('log_folders') == [['c', 0]]


def test_answer_losses_are_shown_above_their_floor():
    records = [{'loop1/answer': 0.5, 'loop1/mask': 0.4, 'step': 1}, {'loop2/answer': 0.25, 'step': 1}]
    assert above_floor(records, 0.25) == [
        {'loop1/answer above its floor of 0.250': 0.25, 'loop1/mask': 0.4, 'step': 1},
        {'loop2/answer above its floor of 0.250': 0.0, 'step': 1}]


def test_the_figures_of_the_cycle_stand_first_and_last():
    hub = MessageHub('report cycle')
    assert cycle_rows(hub.log_scalars) == []
    for cider, share in ((0.5, 0.25), (9.0, 0.5), (1.5, 0.0)):
        hub.update_scalar('cycle/cider', cider)
        hub.update_scalar('cycle/no_seg_rate', share)
    rows = {row.title: (row.first, row.last) for row in cycle_rows(hub.log_scalars)}
    assert rows == {'CIDEr of descriptions': (0.5, 1.5), 'share of answers without [SEG]': (0.25, 0.0)}


@pytest.fixture
def runner(tmp_path, build_loops):
    """A run of 12 steps that logs every third one and has a preview at every fourth; nothing is trained."""
    (tmp_path / 'dated/vis_data').mkdir(parents=True)
    return SimpleNamespace(
        work_dir=str(tmp_path), log_dir=str(tmp_path / 'dated'), iter=0, max_iters=12, experiment_name='my_run_1',
        message_hub=MessageHub(f'report {tmp_path}'), model=build_loops(), train_loop=SimpleNamespace(preview=None),
        cfg=SimpleNamespace(pretty_text="model = dict(tau='<0.7>')"))


def take_step(hook, runner, number):
    if number % 3 == 0:
        with open(f'{runner.log_dir}/vis_data/scalars.json', 'a') as log:
            log.write(json.dumps({'loop1/loss': 1 / number, 'loop2/loss': 2.0, 'loop1/answer': 1.0, 'lr': 0.1,
                                  'step': number}) + '\n')
    runner.train_loop.preview = dict() if number % 4 == 0 else None
    hook.after_train_iter(runner, number - 1)
    runner.iter = number


def test_the_page_is_there_from_the_first_figures_on_and_renewed_at_every_preview(runner, tmp_path, monkeypatch):
    written, write = [], report_hook.write_report
    monkeypatch.setattr(report_hook, 'write_report', lambda path, report: written.append(report) or write(path, report))
    hook, page = ReportHook(), tmp_path / 'report.html'
    hook.before_train(runner)
    runner.message_hub.update_info('held_out_before', dict(giou=0.25))
    take_step(hook, runner, 1)
    take_step(hook, runner, 2)
    assert not page.exists(), 'there is nothing to show yet'
    take_step(hook, runner, 3)
    text = page.read_text()
    assert 'Step 3 of 12' in text and '0.25 →</span> …' in text and 'tau=&#x27;&lt;0.7&gt;' in text
    assert all(each in text for each in ('Command', 'Commit', 'Versions', 'Card', 'Duration', 'Memory'))
    for number in range(4, 12):
        take_step(hook, runner, number)
    assert [report.status.split(' of')[0] for report in written] == ['Step 3', 'Step 4', 'Step 8']
    latest = written[-1]
    assert latest.scalars['loop1/loss'] == ([3, 6], [1 / 3, 1 / 6])
    answer = next(name for name in latest.scalars if name.startswith('loop1/answer'))
    assert latest.losses == {'loop 1': ['loop1/loss', answer], 'loop 2': ['loop2/loss']}
    runner.message_hub.update_info('held_out_after', dict(giou=0.5))
    take_step(hook, runner, 12)
    hook.after_train(runner)
    assert 'Step 12 of 12' in page.read_text() and '0.25 →</span> 0.5<' in page.read_text()


def test_the_figures_of_another_run_stand_beside(runner, tmp_path, capsys):
    """The file that a run writes is what another one reads."""
    for name, after, recorded in (('first', 0.5, None), ('second', 0.75, 'first')):
        runner.work_dir = str(tmp_path / name)
        hook = ReportHook(recorded and dict(title='the <first>', file=str(tmp_path / recorded / 'figures.json')))
        hook.before_train(runner)
        runner.message_hub.update_info('held_out_before', dict(giou=0.25))
        runner.message_hub.update_info('held_out_after', dict(giou=after))
        take_step(hook, runner, 3)
        hook.after_train(runner)
    figures = json.loads((tmp_path / 'second/figures.json').read_text())
    assert figures['steps'] == 3 and figures['seconds'] >= 0 and figures['versions']['torch']
    assert (figures['before'], figures['after']) == ({'held_out/giou': 0.25}, {'held_out/giou': 0.75})
    [first, second] = [line for line in capsys.readouterr().out.splitlines() if 'held-out giou' in line]
    assert [line.split()[2:4] + line.split()[-2:] for line in (first, second)] == [
        ['0.25', '0.5', '(+100', '%)'], ['0.25', '0.75', '%)', '0.5']]
    said = f'the &lt;first&gt;, recorded on {figures["date"]}: 0.5.'
    pages = [(tmp_path / name / 'report.html').read_text() for name in ('first', 'second')]
    assert said in pages[1] and 'recorded on' not in pages[0]


@pytest.mark.parametrize('text', [None, '{}', '[1]', '{"after"'])
def test_figures_that_are_none(tmp_path, text):
    if text is not None:
        (tmp_path / 'figures.json').write_text(text)
    with pytest.raises(ValueError, match='recorded=.*figures.json.* leave recorded out'):
        ReportHook(dict(title='x', file=str(tmp_path / 'figures.json')))


def test_a_page_that_cannot_be_renewed_does_not_end_the_run(runner, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(report_hook, 'print_log', lambda text, *_: said.append(text))
    hook = ReportHook()
    hook.before_train(runner)
    (tmp_path / 'report.html').mkdir()
    take_step(hook, runner, 3)
    assert len(said) == 1 and said[0].startswith('the report could not be renewed') and 'report.html' in said[0]
