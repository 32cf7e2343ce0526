"""Results of a run, read from logs as mmengine writes them."""

import json

import pytest

from dual_loop.proof.plan import Run
from dual_loop.proof.results import read_result, read_results, seconds_of_arms

RUN = Run('both', steps=60)


def write(work_dir, moment, *records):
    file = work_dir / moment / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records))


def step(number, time, loss):
    return dict(step=number, iter=number, time=time, **{'loop1/mask': loss})


def test_an_interrupted_run_counts_as_its_last_log_has_it(tmp_path):
    write(tmp_path, '20260101_1', {'held_out/ciou': 0.5, 'step': 0}, {'cycle/accuracy_shape': 0.25, 'step': 0},
          step(20, 9.0, 1.0), step(40, 0.2, 9.0))
    write(tmp_path, '20260101_2', step(40, 0.4, 2.0), step(60, 0.6, 3.0), {'held_out/ciou': 0.75, 'step': 60},
          {'cycle/accuracy_shape': 0.5, 'step': 60})
    result = read_result(RUN, tmp_path)
    assert result['before'] == {'held_out/ciou': 0.5, 'cycle/accuracy_shape': 0.25}
    assert result['after'] == {'held_out/ciou': 0.75, 'cycle/accuracy_shape': 0.5}
    assert result['curves']['loop1/mask'] == dict(steps=[20, 40, 60], values=[1.0, 2.0, 3.0])
    assert result['seconds'] == 0.5  # of steps 40 and 60; the first ones are slow
    assert (result['arm'], result['steps'], result['held_out']) == ('both', 60, 'val')


def test_a_run_without_its_end_has_no_result(tmp_path):
    with pytest.raises(ValueError, match='is no run'):
        read_result(RUN, tmp_path)
    write(tmp_path, '20260101_1', {'held_out/ciou': 0.5, 'step': 0}, step(40, 0.2, 1.0))
    with pytest.raises(ValueError, match='step 60'):
        read_result(RUN, tmp_path)


def test_seconds_are_those_of_the_runs_that_measured_them(tmp_path):
    for name, steps, seconds in (('a', 60, 0.25), ('b', 60, 0.5), ('c', 600, 4.0)):
        (tmp_path / f'{name}.json').write_text(json.dumps(dict(arm=name[0], steps=steps, seconds=seconds)))
    assert seconds_of_arms(read_results(tmp_path), 60) == dict(a=0.25, b=0.5)
