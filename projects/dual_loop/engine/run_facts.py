"""What a start of a run was: its command, its commit, versions, card; and what it has taken so far."""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size

from dual_loop import __version__
from dual_loop.visualization.run_log import FACTS, Start
from llava_sam2.paths import CHECKOUT, write_whole

from .dry_run import peak_memory

_LIBRARIES = ('torch', 'transformers', 'peft', 'mmengine', 'xtuner', 'deepspeed')


def facts_of_start(step: int) -> dict[str, Any]:
    """Plain values of this process, for ``run.json``.

    Args:
        step: after which the start begins.
    """
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return dict(step=step, command=command(sys.orig_argv), commit=commit(CHECKOUT), card=card(),
                processes=get_world_size(), started=time.time(),
                versions={'dual-loop': __version__, 'python': platform.python_version()} | libraries)


def command(argv: Sequence[str]) -> str:
    """The command line of a process as one would type it.

    Args:
        argv: of the interpreter, which stands first.
    """
    words = list(argv[1:])
    while words and words[0].startswith('-') and words[0] not in ('-m', '-c'):
        words.pop(0)
    if not words:
        return 'python'
    script = Path(words[0])
    if script.name == 'dual-loop':
        return shlex.join(['dual-loop', *words[1:]])
    if words[:2] == ['-m', 'dual_loop_command']:
        return shlex.join(['dual-loop', *words[2:]])
    if script.parts[-3:] == ('xtuner', 'tools', 'train.py'):  # which the command xtuner starts
        return shlex.join(['xtuner', 'train', *words[1:]])
    return shlex.join(['python', *words])


def commit(checkout: Path) -> str:
    """The commit of a checkout, and whether its files differ from it; a sentence where it is none."""
    def git(*words: str) -> str:
        return subprocess.run(['git', '-C', checkout, *words], capture_output=True, text=True, check=True,
                              timeout=20).stdout.strip()

    try:
        if Path(git('rev-parse', '--show-toplevel')).resolve() != checkout.resolve():
            return 'not in a git checkout of its own'
        return git('rev-parse', 'HEAD') + ' with changes' * bool(git('status', '--porcelain', '--untracked-files=no'))
    except FileNotFoundError:
        return 'git is not installed'
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return 'no git checkout'


def card() -> str:
    """The GPU of this process, or the processor."""
    if torch.cuda.is_available():
        return f'{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB'
    name = platform.processor() or platform.machine()
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            name = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), name)
    return f'CPU: {name}, {torch.get_num_threads()} threads'


def write_facts(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``run.json`` into a dated folder, with the seconds and the memory that the start has taken by now."""
    kind, peak = peak_memory()
    facts = facts | dict(seconds=time.time() - facts['started'], memory=peak, memory_of=kind)
    write_whole(folder / FACTS, json.dumps(facts, indent=1, ensure_ascii=False) + '\n', 'the facts of the run')
    return facts


def shown_facts(starts: Sequence[Start]) -> list[tuple[str, str]]:
    """Names and values for readers: of the latest start, with what all starts took; without facts nothing."""
    known = [start.facts for start in starts if start.facts]
    if not known:
        return []
    last = known[-1]
    times = '' if last['processes'] == 1 else f'{last["processes"]} x '
    rows = [('Command', last['command']), ('Commit', last['commit']),
            ('Versions', ', '.join(f'{name} {each}' for name, each in last['versions'].items())),
            ('Card', times + last['card']), ('Duration', duration(sum(facts['seconds'] for facts in known))),
            ('Memory', f'{last["memory"] / 2**30:.2f} GiB, the peak of the {last["memory_of"]}'
                       + ' of rank 0' * (last['processes'] > 1)),
            ('Started', _date(last['started']))]
    if len(known) > 1:
        rows.append(('Starts', '; '.join(f'after step {facts["step"]}, {_date(facts["started"])}' for facts in known)))
    return rows


def duration(seconds: float) -> str:
    """Seconds for readers: '12 s', '3 min 5 s', '2 h 4 min'."""
    whole = round(seconds)
    if whole < 60:
        return f'{whole} s'
    minutes, rest = divmod(whole, 60)
    return f'{minutes} min {rest} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'


def _date(moment: float) -> str:
    return time.strftime('%Y-%m-%d %H:%M', time.localtime(moment))
