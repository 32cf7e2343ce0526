"""Output that nobody reads, or that has no room, leaves no traceback, and work is done to its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: A command that prints more than pipes and buffers hold, in many pieces, and a script of tools/ that does.
TALK = """
import argparse, logging, sys
from pathlib import Path
from dual_loop_command.command import Command, run_process
from dual_loop_command.main import bear_closed_pipes

def act(args):
    logger = logging.getLogger('talk')
    logger.addHandler(logging.StreamHandler(sys.stdout))
    for number in range(3000):
        print('a line of a hundred letters ' + 'x' * 70)
        logger.warning('a line of the log')
        print('.' * 50, file=sys.stderr)
    Path(sys.argv[1]).write_text('done')
    return 3

bear_closed_pipes()
command = Command('talk', '', lambda parser: None, act, anywhere=sys.argv[2] == 'anywhere')
run_process('talk', command, argparse.Namespace())
"""


def start(*command, **streams) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *map(str, command)], text=True, **streams,
                            env=os.environ | dict(PYTHONPATH=str(CHECKOUT / 'projects'), OMP_NUM_THREADS='1'))


def test_work_goes_on_when_the_reader_leaves(tmp_path):
    """The status stays that of the work."""
    process = start('-c', TALK, tmp_path / 'result', 'anywhere', stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith('a line of')
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 3 and not set(said) - set('.\n'), said[-2000:]
    assert (tmp_path / 'result').read_text() == 'done'


def test_no_reader_of_both(tmp_path):
    process = start('-c', TALK, tmp_path / 'result', 'anywhere', stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.close()
    assert process.wait(60) == 3 and (tmp_path / 'result').read_text() == 'done'


@pytest.mark.parametrize('command', [
    ['-m', 'dual_loop_command', 'env'], ['-m', 'dual_loop_command', '--help'],
    ['-m', 'dual_loop_command', 'train', '--help'], [CHECKOUT / 'tools/train.py', '--help'],
    [CHECKOUT / 'tools/benchmark_eval.py', '--help']])
def test_commands_and_scripts(command):
    """The pipe has no reader from the start: the first text that leaves the process finds it closed."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, 'w') as closed:
        process = start(*command, stdout=closed, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and not said, said


def test_without_any_output():
    process = start('-c', 'import os; os.close(1); os.execv(__import__("sys").executable, ["python", "-m", '
                    '"dual_loop_command", "env"])', stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and not said


@pytest.mark.parametrize('kind', ['anywhere', 'here'])
def test_a_full_disk_is_one_line(tmp_path, kind):
    with open('/dev/full', 'w') as full:
        process = start('-c', TALK.replace('logger.w', 'logger.d').replace("'.' * 50", "''"), tmp_path / 'result', kind,
                        stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in said.splitlines() if line] == ['talk: standard output: No space left on device']


def test_help_on_a_full_disk_is_one_line():
    with open('/dev/full', 'w') as full:
        process = start('-m', 'dual_loop_command', 'segment', '--help', stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said == 'dual-loop segment: standard output: No space left on device\n'
