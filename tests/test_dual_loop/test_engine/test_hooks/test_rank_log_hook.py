"""Each process leaves its messages and its crash in a file of its own."""

import signal
import subprocess
import sys

SCRIPT = '''
import os, signal, sys
from types import SimpleNamespace
from mmengine.logging import MMLogger, print_log
from dual_loop.engine.hooks import RankLogHook

logger = MMLogger.get_instance('run')
hook = RankLogHook()
hook.before_run(SimpleNamespace(log_dir=sys.argv[1]))
print_log('a message', logger='current')
os.kill(os.getpid(), signal.SIGUSR1)

def where_it_hangs():
    {ending}

where_it_hangs()
'''


def run(ending: str, folder) -> tuple[int, str]:
    done = subprocess.run([sys.executable, '-c', SCRIPT.replace('{ending}', ending), folder], capture_output=True)
    return done.returncode, (folder / 'rank0.log').read_text()


def test_messages_stacks_and_the_last_error(tmp_path):
    status, log = run("raise KeyError('what went wrong')", tmp_path)
    assert status == 1
    assert 'a message' in log and 'most recent call first' in log  # SIGUSR1 left the stack, the process went on
    assert log.rstrip().endswith("KeyError: 'what went wrong'") and 'where_it_hangs' in log


def test_a_crash_in_native_code_leaves_its_stack(tmp_path):
    status, log = run('import ctypes; ctypes.string_at(0)', tmp_path)
    assert status == -signal.SIGSEGV
    assert 'Segmentation fault' in log and 'where_it_hangs' in log
