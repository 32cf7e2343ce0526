"""What tools/run_proof.py runs and what it refuses; how runs are run is tested beside ``dual_loop.proof``."""

import importlib.util
import json

import pytest

from dual_loop.proof.plan import Run


@pytest.fixture
def tool(checkout, monkeypatch):
    """The tool; runs are noted in ``asked`` in place of run."""
    spec = importlib.util.spec_from_file_location('run_proof', checkout / 'tools/run_proof.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    asked = []
    monkeypatch.setattr(tool.Proof, 'go', lambda self, runs, jobs, seconds: asked.append((runs, jobs)) or tool.answer)
    tool.answer, tool.asked = (0, 0), asked
    return tool


def test_some_arms_with_fewer_steps(tool, tmp_path):
    options = ['--only', 'both', 'supervised', '--steps', '40', '--jobs', '3', '--results', str(tmp_path)]
    assert tool.main(['arms', *options]) == 0
    assert tool.asked == [([Run('both', 40), Run('supervised', 40)], 3)]


@pytest.mark.parametrize(('gpus', 'jobs'), [('', 1), ('0,1,2', 3)])
def test_a_speed_is_measured_alone(tool, tmp_path, monkeypatch, gpus, jobs):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', gpus)
    tool.main(['speed', '--jobs', '8', '--results', str(tmp_path)])
    assert tool.asked[0][1] == jobs


def test_equal_time_goes_by_the_measured_speed(tool, tmp_path):
    for arm, seconds in (('both', 0.4), ('supervised', 0.1)):
        (tmp_path / f'{arm}.json').write_text(json.dumps(dict(arm=arm, steps=60, seconds=seconds)))
    with pytest.raises(SystemExit, match='run the stage speed first'):
        tool.main(['time', '--results', str(tmp_path)])


@pytest.mark.parametrize(('answer', 'status'), [((0, 0), 0), ((2, 0), 75), ((2, 1), 1)])
def test_the_status_says_whether_all_is_done(tool, tmp_path, answer, status):
    tool.answer = answer
    assert tool.main(['recipe', '--results', str(tmp_path)]) == status


def test_a_run_that_is_too_short_to_be_timed(tool):
    with pytest.raises(SystemExit, match='--steps 20 is too short .* use 40 or more'):
        tool.main(['arms', '--only', 'both', '--steps', '20'])


def test_an_arm_that_is_none(tool):
    with pytest.raises(SystemExit, match='no arm boths: use .*both, '):
        tool.main(['arms', '--only', 'boths'])
