"""Shell blocks of README and docs that are marked as runnable run, on demo data and cut to a few steps.

``<!-- runs -->`` before a block: each of its lines is a ``dual-loop`` command and runs in this process.
``<!-- runs full -->``: bash runs the block as it stands, among the tests that take long. The blocks of a page share a
folder, in their order.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dual_loop_command.command import act
from dual_loop_command.main import parser

CHECKOUT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r'^<!-- runs( full)? -->\n```bash\n(.*?)^```$', re.M | re.S)
SHORT = ['train_cfg.max_steps=2', 'train_cfg.preview_interval=1', 'param_scheduler.0.end=1',
         'param_scheduler.1.begin=1', 'param_scheduler.1.end=2', 'default_hooks.checkpoint.interval=1',
         'val_dataloader.dataset.max_samples=8']
#: Goes before a command on PATH: what takes long gets few steps or pictures, everything else is as it stands.
WRAPPER = """#!{python}
import os, sys
arguments = sys.argv[1:]
names = [os.path.basename(word) for word in arguments]
if names[:1] == ['train'] or 'train.py' in names:
    place = arguments.index('--cfg-options') + 1 if '--cfg-options' in arguments else len(arguments)
    arguments[place:place] = [*(['--cfg-options'] if place == len(arguments) else []), *{short!r}]
elif names[:1] == ['eval'] or any(name.startswith('eval_') for name in names):
    arguments += ['--max_samples', '2']
os.execv({python!r}, [{python!r}, *{command!r}, *arguments])
"""


def marked(full: bool) -> list:
    """(page, its marked blocks of one kind, in order)"""
    pages = CHECKOUT / 'README.md', *sorted((CHECKOUT / 'docs').glob('*.md'))
    found = {page.name: [text for kind, text in MARKED.findall(page.read_text()) if bool(kind) == full]
             for page in pages}
    return [pytest.param(blocks, id=name) for name, blocks in found.items() if blocks]


@pytest.fixture
def place(tmp_path):
    """A folder that looks like the checkout to commands, and is not."""
    for name in ('assets', 'configs', 'data', 'docs', 'projects', 'requirements', 'tools'):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    return tmp_path


@pytest.mark.parametrize('blocks', marked(full=False))
def test_commands(blocks, place, monkeypatch):
    monkeypatch.chdir(place)
    for line in '\n'.join(blocks).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0] == 'dual-loop', 'only full blocks have other commands'
        args = parser().parse_args(words[1:])
        assert act('dual-loop', args.__dict__.pop('command'), args) == 0, line


@pytest.mark.full
@pytest.mark.parametrize('blocks', marked(full=True))
def test_blocks(blocks, place):
    commands = place / 'bin'
    commands.mkdir()
    for name, command in (('dual-loop', ['-m', 'dual_loop_command']), ('python', [])):
        file = commands / name
        file.write_text(WRAPPER.format(python=sys.executable, short=SHORT, command=command))
        file.chmod(0o755)
    # VIRTUAL_ENV makes the shell scripts take the python on PATH.
    environment = os.environ | dict(PATH=f'{commands}:{os.environ["PATH"]}', VIRTUAL_ENV=str(place),
                                    PYTHONPATH=str(CHECKOUT / 'projects'), OMP_NUM_THREADS='1')
    for block in blocks:
        done = subprocess.run(['bash', '-euo', 'pipefail', '-c', block], cwd=place, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, f'{block}\n{(done.stdout + done.stderr)[-3000:]}'


def test_some_are_marked_and_every_mark_is_before_a_block():
    assert marked(full=False) and marked(full=True)
    for page in (CHECKOUT / 'README.md', *(CHECKOUT / 'docs').glob('*.md')):
        text = page.read_text()
        assert text.count('<!-- runs') == len(MARKED.findall(text)), page
