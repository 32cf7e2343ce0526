"""What the quickstart starts, in an environment whose Python only says what it was asked."""

import os
import subprocess

import pytest

PYTHON = """#!/usr/bin/env bash
if [ "$1" != - ]; then printf '%s\\n' "$OMP_WAIT_POLICY" "$@"; fi
"""


@pytest.mark.parametrize(('given', 'policy'), [({}, 'PASSIVE'), (dict(OMP_WAIT_POLICY='ACTIVE'), 'ACTIVE')])
def test_it_trains_the_tiny_config_with_threads_that_sleep_while_they_wait(checkout, tmp_path, given, policy):
    (tmp_path / 'bin').mkdir()
    python = tmp_path / 'bin/python'
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != 'OMP_WAIT_POLICY'}
    done = subprocess.run(['bash', checkout / 'tools/quickstart.sh', '--dry-run'], text=True, capture_output=True,
                          env=environment | dict(VIRTUAL_ENV=str(tmp_path)) | given)
    assert (done.returncode, done.stderr) == (0, '')
    using, *asked = done.stdout.splitlines()
    assert using == f'dual-loop: using the active environment {tmp_path}'
    assert asked == [policy, f'{checkout}/tools/train.py', f'{checkout}/configs/dual_loop_tiny.py', '--work-dir',
                     f'{checkout}/work_dirs/dual_loop_tiny', '--dry-run']
