"""``dual-loop report`` on logs that are there, cut off, empty, or no logs."""

import json

import pytest

from dual_loop_command.command import act
from dual_loop_command.report import COMMAND


def report(*arguments) -> int:
    from argparse import ArgumentParser

    return act('dual-loop report', COMMAND, COMMAND.fill(ArgumentParser(), 'dual-loop report').parse_args(
        list(map(str, arguments))))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'my run/20260101_000000/vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps({'loop1/loss': 1.5 / step, 'step': step}) + '\n' for step in (5, 10)]
    (folder / 'scalars.json').write_text(''.join(lines) + '{"loop1/l')
    (folder / 'config.py').write_text('a = 1\n')
    return tmp_path / 'my run'


def test_a_run_becomes_a_page_and_a_picture(run, tmp_path, monkeypatch, capsys):
    assert report(run) == 0
    shown = capsys.readouterr()
    assert 'loop1/loss' in shown.out and 'its last line is cut off and left out' in shown.err
    assert shown.err.count('\n') == 1
    out = tmp_path / 'work_dirs/report/my run'
    assert sorted(file.name for file in out.iterdir()) == ['curves.png', 'index.html']
    assert f'page: {out}/index.html' in shown.out
    assert report(run, run, '--out', 'elsewhere') == 0 and (tmp_path / 'elsewhere/index.html').is_file()


@pytest.mark.parametrize(('arguments', 'says'), [
    (['nowhere'], 'nowhere is no run: it does not exist'),
    (['my run', 'empty'], 'empty: nothing has been logged yet'),
    (['folder'], 'there is no vis_data/scalars.json in it'),
    (['my run', '--out', 'file'], '--out file is a file: give a folder'),
])
def test_what_cannot_be_shown_is_one_line(run, tmp_path, monkeypatch, capsys, arguments, says):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('')
    (tmp_path / 'empty/d/vis_data').mkdir(parents=True)
    (tmp_path / 'empty/d/vis_data/scalars.json').write_text('')
    assert report(*arguments) == 1
    said, = [line for line in capsys.readouterr().err.splitlines() if 'note:' not in line]
    assert says in said and said.startswith('dual-loop report: ')
    assert not (tmp_path / 'work_dirs').exists()
