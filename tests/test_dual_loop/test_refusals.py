"""What the user has to mend is one line; faults of the code and of libraries keep their traceback."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, Registry

from dual_loop.checkpoints.files import check_whole
from dual_loop.evaluation.loading import load_model
from dual_loop.refusals import in_one_line, refusal
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.paths import writing
from llava_sam2.randomness import seed_for
from llava_sam2.weights.loading import load_pretrained

PARTS = Registry('refused parts')


def caught(act) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError('nothing was raised')


def write_to_a_full_disk():
    with writing('the notes', '/dev/full'), open('/dev/full', 'w') as file:
        file.write('x')


@pytest.mark.parametrize(('act', 'says'), [
    (lambda: check_whole('nowhere/iter_2.pth'), 'There is no checkpoint nowhere/iter_2.pth'),
    (lambda: load_model('nowhere'), 'nowhere does not exist: give the folder of a model'),
    (lambda: load_model(__file__ + '/..'), None),  # not a folder
    (lambda: Path('nowhere/file').read_bytes(), 'nowhere/file: No such file or directory'),
    (write_to_a_full_disk, 'the notes cannot be written to /dev/full: No space left on device'),
    (lambda: PARTS.build(dict(type='Missing')), 'Missing is not in the'),
])
def test_refusals(act, says):
    said = refusal(caught(act))
    assert said and (says is None or says in said) and '\n' not in said


@pytest.mark.parametrize('act', [
    lambda: int('abc'), lambda: json.loads('{'), lambda: dict()['key'], lambda: torch.zeros(2) @ torch.zeros(3),
    lambda: load_pretrained(None, None), lambda: seed_for(lambda: 0).none, lambda: [][0],
])
def test_faults(act):
    """Also of ValueError's kind, and in functions of this project."""
    assert refusal(caught(act)) is None


def test_a_raise_statement_elsewhere_is_no_refusal():
    def act():
        raise ValueError('of a plug-in')
    assert refusal(caught(act)) is None


def test_what_mmengine_builds():
    """Our own sentence comes through the registry."""
    said = refusal(caught(lambda: MODELS.build(dict(type=VideoLLaVASAMModel, tokenizer='assets/tiny'))))
    assert said.startswith('model.pretrained=None and model.random_weights=False')


def test_status_and_traceback(capsys, monkeypatch):
    assert in_one_line('tool', lambda: 3) == 3
    assert in_one_line('tool', lambda: check_whole('nowhere')) == 1
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('tool: There is no checkpoint nowhere')
    with pytest.raises(ValueError):
        in_one_line('tool', lambda: int('abc'))
    assert not capsys.readouterr().err
    monkeypatch.setenv('DUAL_LOOP_TRACEBACK', '1')
    assert in_one_line('tool', lambda: check_whole('nowhere')) == 1
    said = capsys.readouterr().err
    assert 'Traceback' in said and said.splitlines()[-1] == line
