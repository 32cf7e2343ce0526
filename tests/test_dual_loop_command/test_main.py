"""The command line: help without the heavy packages, one line for slips of it, and the same under every name."""

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from dual_loop_command import main as command_line

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = [command.name for command in command_line.COMMANDS]
TASKS = ['refcoco', 'refcoco+', 'refcocog', 'refcocog-caption', 'cycle']
THIN = {'train': 'train', 'check_data': 'check', 'browse_dataset': 'browse', 'convert_ckpt_to_hf': 'export',
        'make_demo_data': 'demo-data', 'compare_results': 'compare', 'eval_refcoco': 'eval refcoco',
        'eval_captions': 'eval refcocog-caption', 'eval_cycle': 'eval cycle'}
#: What no help may need; a module that is None cannot be imported.
LIGHT = """
import runpy, sys
for name in ('torch', 'mmengine', 'numpy', 'PIL', 'cv2', 'transformers', 'xtuner', 'dual_loop'):
    sys.modules[name] = None
"""


def run(code: str, *arguments, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code, *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(CHECKOUT / 'projects'), COLUMNS='120'), **more)


def test_every_help_has_examples_and_imports_nothing_heavy():
    done = run(LIGHT + """
from dual_loop_command.main import main
for words in sys.argv[1:]:
    try:
        main([*words.split(), '--help'])
    except SystemExit as ended:
        assert not ended.code, words
    print('=====')
""", '', *COMMANDS, *(f'eval {task}' for task in TASKS))
    assert done.returncode == 0, done.stderr
    whole, *helps, rest = done.stdout.split('=====\n')
    assert not rest and all(f'\n    {name}' in whole for name in COMMANDS)
    names = [*COMMANDS, *(f'eval {task}' for task in TASKS)]
    assert len(helps) == len(names)
    for name, text in zip(names, helps):
        assert f'\n    dual-loop {name}' in text, 'an example'
        assert '{command}' not in text and 'usage: dual-loop' in text


def test_the_scripts_have_the_same_help_as_light(monkeypatch, capsys):
    done = run(LIGHT + """
from dual_loop_command import environment
environment.missing = lambda: []
for script in sys.argv[1:]:
    sys.argv[:] = [script, '--help']
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as ended:
        assert not ended.code, script
    print('=====')
""", *(CHECKOUT / f'tools/{name}.py' for name in THIN))
    assert done.returncode == 0, done.stderr
    helps = done.stdout.split('=====\n')[:-1]
    monkeypatch.setenv('COLUMNS', '120')
    for (script, name), text in zip(THIN.items(), helps, strict=True):
        with pytest.raises(SystemExit):
            command_line.main([*name.split(), '--help'])
        of_command = capsys.readouterr().out
        # The script of referring segmentation has the data set as its first argument.
        assert arguments(of_command) == arguments(text) - {'  DATASET', '  refcoco, refcoco+, refcocog'}, script
        assert f'\n    python tools/{script}.py' in text, 'an example'
        source = (CHECKOUT / f'tools/{script}.py').read_text()
        assert 'add_argument' not in source and f'dual-loop {name}' in source


def arguments(text: str) -> set[str]:
    """The lines about arguments, without the widths of their columns."""
    lines = text[text.index('positional arguments:'):].splitlines()
    return {'  ' + part for line in lines for part in re.split(r'\s{2,}', line) if part}


def test_the_console_script_is_the_module():
    setup = ConfigParser()
    setup.read(CHECKOUT / 'setup.cfg')
    assert setup['options.entry_points']['console_scripts'].split() == ['dual-loop', '=', 'dual_loop_command.main:main']
    for words, status in ((['compare', '--help'], 0), (['eval', 'nothing'], 2)):
        of_script = run('from dual_loop_command.main import main\nmain()', *words)
        of_module = subprocess.run(
            [sys.executable, '-m', 'dual_loop_command', *words], capture_output=True, text=True,
            env=os.environ | dict(PYTHONPATH=str(CHECKOUT / 'projects'), COLUMNS='120'))
        assert of_script.returncode == of_module.returncode == status
        assert of_script.stderr == of_module.stderr and of_script.stdout == of_module.stdout
        assert 'dual-loop' in of_module.stdout + of_module.stderr


@pytest.mark.parametrize(('arguments', 'says'), [
    (['trane'], "invalid choice: 'trane'"),
    ([], 'the following arguments are required: COMMAND'),
    (['train'], 'the following arguments are required: config'),
    (['train', 'c.py', '--cfg-options', 'model.tau', '0.5'], "'model.tau' is not KEY=VALUE: write for example"),
    (['check', 'c.py', '--samples', '0'], "'0' is not a whole number from 1 on"),
    (['check', ''], 'an argument is empty'),  # and not the current folder
    (['describe', 'photo.png', '--point', '1,2', '--model='], 'an argument is empty'),
    (['segment', 'photo.png', ' '], 'say what to find'),
    (['describe', 'photo.png'], 'one of the arguments --mask --box --point is required'),
    (['describe', 'photo.png', '--box', '1,2,3'], "'1,2,3' is not x,y,w,h in pixels"),
    (['describe', 'photo.png', '--box', '1,2,0,3'], 'has no area'),
    (['describe', 'photo.png', '--point', 'nan,2'], "'nan,2' is not x,y in pixels"),
    (['describe', 'photo.png', '--box', '-5,-5,0,9'], "'-5,-5,0,9' has no area"),
    (['segment', 'photo.png', 'x', '--max-new-tokens', '9' * 20], '9 is more than 8192'),
    (['eval', 'cycle', '--max_new_tokens', '9000'], '9000 is more than 8192'),
    (['estimate', 'c.py', '--gpus', '9' * 20], '9 is more than 1000000000'),
    (['describe', 'photo.png', '--point', '1,2', '--box', '1,2,3,4'], 'not allowed with'),
])
def test_a_wrong_command_line_is_one_line(arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    said, = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and says in said
    assert said.startswith('dual-loop') and said.endswith('(--help says more)')
