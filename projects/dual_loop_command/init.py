"""``dual-loop init``."""

import sys
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
    from dual_loop.datasets import MissingData
    from dual_loop.engine.own_config import write_config
    from dual_loop_command.check import quiet
    from llava_sam2.paths import CHECKOUT

    require_folder(args.data)
    with quiet():
        problems = count_problems(args.data)
        try:
            print(write_config(args.out, args.data, args.model or CHECKOUT / 'assets/tiny', args.steps))
        except MissingData as error:
            raise ValueError(f'--data {args.data} has no objects: put pictures into images and a mask of each object '
                             'into masks') from error
    print(f'{args.out.absolute()}\nnext: dual-loop check {args.out}, then dual-loop train {args.out}')
    if problems:
        print(f'{args.caller}: note: {problems} problem{"s" * (problems > 1)} in {args.data}, what has one is not '
              f'used: run dual-loop check {args.data}', file=sys.stderr)
    return 0


def require_folder(data: Path) -> None:
    """Raises ``FileNotFoundError`` if ``data`` cannot be a folder of one's own."""
    from dual_loop.datasets.folder_layout import IMAGES, MASKS, annotation_file

    if not data.is_dir():
        raise FileNotFoundError(f'--data {data} {"is a file" if data.exists() else "does not exist"}: give a folder '
                                f'with {IMAGES} and {MASKS} in it (looked from {Path.cwd()})')
    missing = [name for name in (IMAGES, MASKS) if not (data / name).is_dir()]
    if IMAGES in missing or missing and annotation_file(data, None) is None:
        raise FileNotFoundError(f'--data {data} has no folder {" and no folder ".join(missing)}: put the pictures into '
                                f'{IMAGES}, and a mask of each object into {MASKS} (or a json file of COCO beside)')


def count_problems(data: Path) -> int:
    """How many things in the folder cannot be used, as far as indexes tell. Raises ``ValueError`` if it is too much."""
    from dual_loop.datasets import FolderDataset, TooManyBadSamples
    from dual_loop.engine.own_config import HELD_OUT_SHARES

    try:  # the indexes that ``write_config`` begins with, so that no mask is decoded once more
        parts = [FolderDataset(data.absolute(), split=split, held_out_share=HELD_OUT_SHARES[0], exclude_image_ids=(),
                               optional=True, name='mine') for split in ('train', 'held_out')]
    except TooManyBadSamples as error:
        raise ValueError(f'--data {data} has too many masks or captions that cannot be used: run dual-loop check {data}'
                         ', which names them') from error
    return len({(entry['path'], entry['reason']) for part in parts for entry in part.quarantine.entries})


COMMAND = Command('init', ABOUT, add_arguments, act)
