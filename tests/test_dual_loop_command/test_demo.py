"""``dual-loop demo``: refusals before anything is loaded. Its page has tests in tests/test_dual_loop/test_demo_page."""

import importlib.util
import socket
from importlib import metadata

import pytest

from dual_loop_command import demo, main

DEMO = demo.CHECKOUT / 'requirements/demo.txt'


def refused(capsys, *arguments) -> str:
    assert demo.COMMAND.main_of('demo', list(arguments)) == 1
    said, = capsys.readouterr().err.splitlines()
    return said


def test_without_gradio_the_install_command_is_named(monkeypatch, capsys):
    monkeypatch.setattr(demo, 'PACKAGES', ('gradio_that_is_missing', 'torch'))
    assert refused(capsys) == ('demo: gradio_that_is_missing is not installed: run `python -m pip install --no-deps -r '
                               f'{DEMO}`')


def test_the_packages_looked_for_are_those_of_the_list():
    listed = {line.partition('==')[0].replace('_', '-') for line in DEMO.read_text().splitlines() if line[0] != '#'}
    providers = metadata.packages_distributions()
    missing = [name for name in demo.PACKAGES if name not in providers]
    if missing:
        pytest.skip(f'requirements/demo.txt is not installed: {", ".join(missing)}')
    assert {providers[name][0].replace('_', '-') for name in demo.PACKAGES} == listed


def test_the_list_leaves_the_lock_as_it_is():
    demo_names, locked = ({line.partition('==')[0].lower().replace('_', '-') for line in file.read_text().splitlines()
                           if '==' in line} for file in (DEMO, DEMO.with_name('lock.txt')))
    assert len(demo_names) > 10 < len(locked) and not demo_names & locked


def test_refusals_before_a_model_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, 'find_spec', lambda name: importlib.util.find_spec('json'))  # as if all were installed
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, '--port', str(port), '--model', 'none')
        assert f'127.0.0.1:{port} cannot be used (Address already in use): choose another one, such as --port ' in said
    assert '--model none does not exist' in refused(capsys, '--port', '0', '--model', 'none')
    for port in ('x', '-1', '65536', '80.0'):
        with pytest.raises(SystemExit) as ended:
            main.main(['demo', f'--port={port}'])
        said, = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and f'{port!r} is no port from 0' in said
