"""Facts about a start, against the commands that ask for them."""

import json
import subprocess
from pathlib import Path

import pytest

from dual_loop.engine.run_facts import card, command, commit, duration, facts_of_start, shown_facts, write_facts
from dual_loop.visualization.run_log import Start, read_facts


@pytest.mark.parametrize(('argv', 'typed'), [
    (['/env/bin/python', '/env/bin/dual-loop', 'train', 'c.py'], 'dual-loop train c.py'),
    (['python', '-u', 'tools/train.py', 'c.py', '--cfg-options', 'a="b c"'],
     "python tools/train.py c.py --cfg-options 'a=\"b c\"'"),
    (['python', '/x/site-packages/xtuner/tools/train.py', 'c.py'], 'xtuner train c.py'),
    (['python', '-m', 'dual_loop_command', 'train', 'c.py'], 'dual-loop train c.py'),
    (['python'], 'python'),
])
def test_the_command_is_as_one_would_type_it(argv, typed):
    assert command(argv) == typed


def test_the_commit_is_that_of_the_checkout_itself(tmp_path):
    assert commit(tmp_path) == 'no git checkout'

    def git(*words):
        return subprocess.run(['git', '-C', tmp_path, '-c', 'user.name=n', '-c', 'user.email=e', *words], check=True,
                              capture_output=True, text=True).stdout.strip()

    git('init')
    (tmp_path / 'file').write_text('a')
    git('add', 'file')
    git('commit', '-m', 'm')
    assert commit(tmp_path) == git('rev-parse', 'HEAD')
    (tmp_path / 'file').write_text('b')
    assert commit(tmp_path) == git('rev-parse', 'HEAD') + ' with changes'
    (tmp_path / 'installed').mkdir()
    assert commit(tmp_path / 'installed') == 'not in a git checkout of its own'


def test_facts_are_written_read_and_shown(tmp_path):
    facts = write_facts(tmp_path, facts_of_start(6))
    assert json.loads((tmp_path / 'run.json').read_text()) == facts == read_facts(tmp_path)
    assert facts['step'] == 6 and facts['memory'] > 50 * 2**20 and facts['seconds'] >= 0
    # What the kernel counts, in kB; memory only grows.
    peak = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))
    assert facts['memory'] <= int(peak.split()[1]) * 1024 * 1.05
    later = facts | dict(step=10, seconds=65.0, processes=8)
    shown = dict(shown_facts([Start(tmp_path, 6, [], facts | dict(seconds=60.0)), Start(tmp_path, 10, [], later)]))
    assert list(shown) == ['Command', 'Commit', 'Versions', 'Card', 'Duration', 'Memory', 'Started', 'Starts']
    assert shown['Duration'] == '2 min 5 s' and shown['Card'] == f'8 x {card()}' and 'torch 2' in shown['Versions']
    assert 'of rank 0' in shown['Memory'] and 'after step 6' in shown['Starts'] and 'after step 10' in shown['Starts']
    assert shown_facts([Start(tmp_path, 0, [])]) == []


def test_durations():
    assert [duration(each) for each in (0.4, 59.4, 59.6, 3599, 7260)] == ['0 s', '59 s', '1 min 0 s', '59 min 59 s',
                                                                          '2 h 1 min']
