"""Every tool answers --help with status 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
SHELL = sorted(path.name for path in TOOLS.glob('*.sh'))

# One process for all of them: the imports take longer than the rest.
PROGRAM = """
import runpy, sys
sys.path[0] = sys.argv[1]
for script in sys.argv[2:]:
    sys.argv[:] = [script, '--help']
    print('=====', script, flush=True)
    try:
        runpy.run_path(script, run_name='__main__')
        print('did not end')
    except SystemExit as ended:
        print(f'status {ended.code or 0}', flush=True)
"""


def test_python_tools(tmp_path):
    scripts = sorted(TOOLS.glob('*.py'))
    done = subprocess.run([sys.executable, '-c', PROGRAM, TOOLS, *scripts], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    nothing, *helps = done.stdout.split('===== ')
    assert not nothing and len(helps) == len(scripts) > 15
    for script, text in zip(scripts, helps):
        assert text.startswith(f'{script}\n') and text.endswith('status 0\n'), text
        assert 'usage: ' in text and '--help' in text and len(text.splitlines()) > 6, text


@pytest.mark.parametrize('name', SHELL)
def test_shell_tools(tmp_path, name):
    done = subprocess.run([TOOLS / name, '-h'], capture_output=True, text=True, cwd=tmp_path,
                          env=dict(PATH=os.environ['PATH']))
    assert done.returncode == 0 and f'tools/{name}' in done.stdout and not done.stderr
