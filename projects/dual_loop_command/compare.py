"""``dual-loop compare`` and ``tools/compare_results.py``."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.arguments import count
from dual_loop_command.command import Command

ABOUT = """Show as one table by how much results of evaluations differ from the first one, and how sure that is.

    {command} base.json full.json lora.json --metrics ciou giou --out table.md

Every figure stands with its 95 % interval over images, every difference with the paired one (bootstrap). Only what
was asked alike is compared: the same task, protocol, data, prompt and samples.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('base', type=Path, help='JSON of an evaluation that the others are compared with')
    parser.add_argument('others', type=Path, nargs='+', help='JSON of other evaluations')
    parser.add_argument('--metrics', nargs='+', metavar='NAME',
                        help='such as ciou giou precision@0.5 no_seg_rate cider, of one condition and frame '
                             'giou/CONDITION/FRAME (default: all that the files share, without the precisions)')
    parser.add_argument('--resamples', type=count, default=2000, metavar='N', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='of the resamples (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='file to write the table to as well, as Markdown')


def act(args: Namespace) -> int:
    from dual_loop.evaluation.comparison import compare
    from llava_sam2.paths import write_whole

    text, notes = compare([args.base, *args.others], args.metrics, args.resamples, args.seed)
    for line in notes:
        print(f'{args.caller}: note: {line}', file=sys.stderr)
    if args.out:
        write_whole(args.out, text, 'the table')
    print(text, end='')
    return 0


COMMAND = Command('compare', ABOUT, add_arguments, act)
