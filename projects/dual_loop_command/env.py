"""``dual-loop env``."""

import platform
import sys
from argparse import ArgumentParser, Namespace
from importlib import metadata

from dual_loop_command.command import Command
from dual_loop_command.environment import missing
from llava_sam2.cores import usable_cores
from llava_sam2.paths import CHECKOUT

ABOUT = """Show versions, devices and what is missing: what a report of a fault should have.

    {command}

Ends with status 1 when something that is needed is not installed.
"""
LOCK = CHECKOUT / 'requirements/lock.txt'
#: Not needed for everything: package -> what needs it.
OPTIONAL = dict(xtuner='training', deepspeed='--deepspeed', pycocoevalcap='CIDEr, METEOR and BLEU',
                torchjd='surgery rules torchjd:NAME')


def add_arguments(parser: ArgumentParser) -> None:
    pass


def version(name: str) -> str | None:
    """Of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def different_from_lock() -> list[str]:
    """A line for each package that is not installed as requirements/lock.txt says."""
    locked = [line.strip().split('==') for line in LOCK.read_text().splitlines() if '==' in line and line[0] != '#']
    found = [(name, version(name), wanted) for name, wanted in locked]
    return [f'{name} {has or "missing"}, not {wanted}' for name, has, wanted in found if has != wanted]


def devices() -> list[str]:
    """A line for each device that torch sees, and what the processor may use."""
    import torch

    cores = usable_cores()
    lines = [f'CPU: {cores} cores for this process, {torch.get_num_threads()} threads']
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        lines.append(f'GPU {number}: {card.name}, {card.total_memory / 2**30:.0f} GiB')
    return lines if torch.cuda.is_available() else [*lines, 'no GPU that torch can use']


def act(args: Namespace) -> int:
    print(f'dual-loop in {CHECKOUT}')
    print(f'Python {platform.python_version()} ({sys.executable}), {platform.platform()}')
    for name in ('torch', 'torchvision', 'transformers', 'mmengine', 'peft', *OPTIONAL):
        purpose = f' (for {OPTIONAL[name]})' if name in OPTIONAL else ''
        print(f'{name}: {version(name) or f"not installed{purpose}"}')
    absent = missing()
    for line in [] if 'torch' in absent else devices():
        print(line)
    if LOCK.is_file():
        wrong = different_from_lock()
        print(f'requirements/lock.txt: {"; ".join(wrong) if wrong else "installed as it says"}')
    if absent:
        print(f'missing: {", ".join(absent)}; run `bash tools/install.sh`')
    return 1 if absent else 0


COMMAND = Command('env', ABOUT, add_arguments, act, anywhere=True)
