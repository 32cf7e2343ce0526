"""``dual-loop report``."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.command import Command

ABOUT = """Show the curves of one or several runs, what their settings differ in, and first, last and best values.

    {command} work_dirs/dual_loop_tiny
    {command} work_dirs/base work_dirs/tau_05 work_dirs/pcgrad --out work_dirs/report/bridges

RUN is the work_dir of a training run; it may still be running. Writes index.html and curves.png. A resumed run is one
curve: steps that were taken again after a resume replace the older ones. (Training itself keeps RUN/report.html, with
pictures and texts.)
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN', help='work_dir of a run')
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='default: work_dirs/report/<names of the runs>')


def act(args: Namespace) -> int:
    from dual_loop.visualization.run_comparison import print_runs, read_runs, write_comparison

    if args.out and args.out.is_file():
        raise ValueError(f'--out {args.out} is a file: give a folder')
    notes: list[str] = []
    runs = read_runs(args.runs, notes)
    for line in notes:
        print(f'{args.caller}: note: {line}', file=sys.stderr)
    names = [run.folder.resolve().name for run in runs]
    out = args.out or Path('work_dirs/report') / '_'.join(names)[:100]
    page, picture = write_comparison(runs, out, ' · '.join(names))
    print_runs(runs)
    print(f'page: {page.absolute()}\npicture: {picture.absolute()}')
    return 0


COMMAND = Command('report', ABOUT, add_arguments, act)
