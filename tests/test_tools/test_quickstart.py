"""What the quickstart starts, in an environment whose Python only says what it was asked."""

import os
import subprocess

PYTHON = """#!/usr/bin/env bash
if [ "$1" != - ]; then printf '%s\\n' "$@"; fi
"""


def test_it_trains_the_tiny_config(checkout, tmp_path):
    (tmp_path / 'bin').mkdir()
    python = tmp_path / 'bin/python'
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = subprocess.run(['bash', checkout / 'tools/quickstart.sh', '--dry-run'], text=True, capture_output=True,
                          env=os.environ | dict(VIRTUAL_ENV=str(tmp_path)))
    assert (done.returncode, done.stderr) == (0, '')
    using, *asked = done.stdout.splitlines()
    assert using == f'dual-loop: using the active environment {tmp_path}'
    assert asked == [f'{checkout}/tools/train.py', f'{checkout}/configs/adapt_tiny.py', '--work-dir',
                     f'{checkout}/work_dirs/adapt_tiny', '--dry-run']
