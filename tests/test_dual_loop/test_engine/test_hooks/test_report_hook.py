"""Which log lines belong to a run that was stopped and resumed."""

import json
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from dual_loop.engine.hooks import ReportHook
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
    return [(record['step'], record['loop1/loss']) for record in read_steps(work_dir, log_folders)]


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
    rows = {row.name: (row.first, row.last) for row in cycle_rows(hub.log_scalars)}
    assert rows == {'CIDEr of descriptions': (0.5, 1.5), 'share of answers without [SEG]': (0.25, 0.0)}
