"""``dual-loop init``."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.arguments import count
from dual_loop_command.command import Command

ABOUT = """Write a short config that trains on a folder of your own pictures.

    {command} my_run.py --data data/my_pictures
    {command} my_run.py --data data/my_pictures --model pretrained/Sa2VA-4B

Half of what each loop sees becomes yours, and a part of your pictures is held out and measured before and after.
docs/custom_data.md says what lies in the folder. The tiny model (the default) runs on a CPU and shows that all fits
together; released weights need a GPU.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('out', type=Path, metavar='OUT', help='config file to write, such as my_run.py')
    parser.add_argument('--data', type=Path, required=True, metavar='FOLDER', help='with images, masks and captions')
    parser.add_argument('--model', type=Path, metavar='FOLDER',
                        help='an exported or released model to start from (default: assets/tiny)')
    parser.add_argument('--steps', type=count, default=200, metavar='N', help='of the run (default: %(default)s)')


def act(args: Namespace) -> int:
    from dual_loop.engine.own_config import write_config
    from dual_loop_command.check import quiet
    from llava_sam2.paths import CHECKOUT

    with quiet():
        print(write_config(args.out, args.data, args.model or CHECKOUT / 'assets/tiny', args.steps))
    print(f'{args.out.absolute()}\nnext: dual-loop check {args.out}, then dual-loop train {args.out}')
    return 0


COMMAND = Command('init', ABOUT, add_arguments, act)
