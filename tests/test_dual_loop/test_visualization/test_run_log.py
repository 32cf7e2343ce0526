"""Logs of work_dirs: starts, steps that were taken again, and files that are no logs."""

import json
import math

import pytest

from dual_loop.visualization.run_log import NoRun, joined, read_scalars, read_starts, step_of


def log(work_dir, name, steps, value, first=(), facts=None, end='\n'):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps({'loop1/loss': value, 'step': step}) for step in steps]
    lines = [json.dumps({'held_out/giou': value, 'step': step}) for step in first] + lines
    (folder / 'scalars.json').write_text('\n'.join(lines) + end)
    if facts is not None:
        (folder.parent / 'run.json').write_text(json.dumps(facts))


def shown(work_dir):
    return [(step_of(record), record.get('loop1/loss', 'held out')) for record in joined(read_starts(work_dir))]


def test_steps_that_were_taken_again_replace_the_older_ones(tmp_path):
    log(tmp_path, '20260101_000000', range(2, 14, 2), 1.0, first=[0])
    log(tmp_path, '20260102_000000', range(8, 12, 2), 2.0)
    log(tmp_path, '20260103_000000', range(10, 16, 2), 3.0)
    assert shown(tmp_path) == [(0, 'held out'), (2, 1.0), (4, 1.0), (6, 1.0), (8, 2.0), (10, 3.0), (12, 3.0), (14, 3.0)]


def test_a_later_start_may_go_back_beyond_the_one_before(tmp_path):
    log(tmp_path, 'a', range(1, 9), 1.0)
    log(tmp_path, 'b', range(7, 9), 2.0)
    log(tmp_path, 'c', range(3, 5), 3.0)
    assert shown(tmp_path) == [(1, 1.0), (2, 1.0), (3, 3.0), (4, 3.0)]


def test_a_run_that_began_anew_replaces_all(tmp_path):
    log(tmp_path, 'a', range(1, 9), 1.0, first=[0])
    log(tmp_path, 'b', [5, 10], 2.0, first=[0])
    assert shown(tmp_path) == [(0, 'held out'), (5, 2.0), (10, 2.0)]
    log(tmp_path, 'c', [20], 3.0, facts=dict(step=0))  # logs more rarely: only its facts tell where it began
    assert shown(tmp_path) == [(20, 3.0)]


def test_facts_tell_where_a_start_began(tmp_path):
    log(tmp_path, 'a', range(1, 9), 1.0)
    log(tmp_path, 'b', [8], 2.0, facts=dict(step=3))
    assert shown(tmp_path) == [(1, 1.0), (2, 1.0), (3, 1.0), (8, 2.0)]


def test_a_start_that_logged_nothing_is_passed_over(tmp_path):
    log(tmp_path, 'a', [1], 1.0)
    log(tmp_path, 'b', [], 2.0, end='')
    assert shown(tmp_path) == [(1, 1.0)] == shown(tmp_path / 'a')


@pytest.mark.parametrize(('make', 'says'), [
    (lambda folder: None, 'it does not exist; give the work_dir'),
    (lambda folder: folder.write_text('x'), 'it is a file'),
    (lambda folder: folder.mkdir(), 'there is no vis_data/scalars.json in it'),
    (lambda folder: log(folder, 'a', [], 1.0, end=''), 'nothing has been logged yet'),
    (lambda folder: log(folder, 'a', [1], 1.0, end='\n{"x"\n{}\n'), 'line 2 is not JSON'),
    (lambda folder: log(folder, 'a', [1], 1.0, end='\n{"x": 1}\n'), 'line 2 is no record with a step'),
    (lambda folder: log(folder, 'a', [1], 1.0, end='\n[1]\n'), 'line 2 is no record with a step'),
])
def test_what_is_no_run_is_one_line(tmp_path, make, says):
    make(tmp_path / 'run')
    with pytest.raises(NoRun, match=says) as refused:
        read_starts(tmp_path / 'run')
    assert str(tmp_path / 'run') in str(refused.value) and '\n' not in str(refused.value)


def test_a_last_line_that_is_cut_off_is_left_out_and_said(tmp_path):
    log(tmp_path, 'a', [1, 2], 1.0, end='\n{"loop1/loss": 0.')
    notes = []
    assert [step_of(record) for record in joined(read_starts(tmp_path, notes))] == [1, 2]
    assert len(notes) == 1 and 'scalars.json: its last line is cut off' in notes[0]


def test_a_nan_is_a_number_and_damaged_bytes_are_named(tmp_path):
    file = tmp_path / 'scalars.json'
    file.write_text('{"loss": NaN, "iter": 2}\n')
    assert math.isnan(read_scalars(file)[0]['loss'])
    file.write_bytes(b'{"loss": 1, "step": 1}\n\xff\xfe\n')
    with pytest.raises(NoRun, match='is no text'):
        read_scalars(file)
