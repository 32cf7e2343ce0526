"""Outside the environment, and under another Python, every command is one line with the remedy."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: All but the one that makes the environment.
SCRIPTS = sorted(script for script in (CHECKOUT / 'tools').glob('*.py') if script.stem != 'install_packages')
COMMAND = f'import sys; sys.path.insert(0, {str(CHECKOUT / "projects")!r})\n'
TRAIN = 'from dual_loop_command.main import main\nmain(["train", "config.py"])'


def start(*arguments) -> subprocess.Popen:
    """Without any installed package, and without PYTHONPATH."""
    return subprocess.Popen([sys.executable, '-I', '-S', *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def test_outside_the_environment():
    for process in [*(start(script) for script in SCRIPTS), start('-c', COMMAND + TRAIN)]:
        _, said = process.communicate(timeout=60)
        line, = said.splitlines()
        assert process.returncode == 1 and line.startswith('dual-loop: torch, ') and 'mmengine' in line, said
        assert sys.executable in line and '`bash tools/install.sh`' in line and 'source .venv/bin/activate' in line


def test_env_says_what_is_missing():
    process = start('-c', COMMAND + 'from dual_loop_command.main import main\nmain(["env"])')
    shown, said = process.communicate(timeout=60)
    assert process.returncode == 1 and not said
    assert 'torch: not installed' in shown and 'missing: torch, ' in shown and 'bash tools/install.sh' in shown


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 10, 2), (3, 13, 0)])
def test_another_python(version):
    older = f'import sys; sys.version_info = {(*version, "final", 0)}\n'
    script = f'import runpy; runpy.run_path({str(SCRIPTS[0])!r}, run_name="__main__")'
    for process in (start('-c', older + script), start('-c', older + COMMAND + TRAIN)):
        _, said = process.communicate(timeout=60)
        line, = said.splitlines()
        assert process.returncode == 1
        assert line.startswith(f'dual-loop needs Python 3.11 or 3.12, and {sys.executable} is 3.{version[1]}: run')


def test_another_python_gets_as_far_as_that():
    """What it reads before it is told, in the syntax that it knows."""
    light = CHECKOUT / 'projects/dual_loop_command'
    for file in (light / '__init__.py', light / 'environment.py', light / 'script.py'):
        ast.parse(file.read_text(), feature_version=(3, 4))
    for file in (*SCRIPTS, light / 'main.py', light / '__main__.py'):
        ast.parse(file.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize(('given', 'policy'), [({}, 'PASSIVE'), (dict(OMP_WAIT_POLICY='ACTIVE'), 'ACTIVE')])
def test_threads_sleep_while_they_wait(given, policy):
    """Before torch reads it: it is settled with what is imported first."""
    code = COMMAND + 'import os, dual_loop_command.script\nassert "torch" not in sys.modules\n' \
        'print(os.environ["OMP_WAIT_POLICY"])'
    environment = {name: value for name, value in os.environ.items() if name != 'OMP_WAIT_POLICY'} | given
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [policy]
