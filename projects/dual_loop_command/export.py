"""``dual-loop export`` and ``tools/convert_ckpt_to_hf.py``."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.arguments import DTYPES, PARTS
from dual_loop_command.command import Command

ABOUT = """Write a trained checkpoint as a folder that loads without this project, LoRA merged into the base in fp32.

    {command} CONFIG CHECKPOINT OUT
    {command} configs/dual_loop_tiny.py work_dirs/tiny/iter_300.pth exported
    {command} CONFIG CHECKPOINT OUT --parts lora --ema --dtype bf16

What is not selected by --parts keeps its value in the base. Prints what changed, and by how much.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='iter_N.pth in the work_dir, a file or (from DeepSpeed) a folder')
    parser.add_argument('out', type=Path, help='folder to write; it must not exist')
    parser.add_argument('--base', help='folder of the base weights, if not the one in the config')
    parser.add_argument('--parts', choices=PARTS, default='full',
                        help='trained parts to take: all, LoRA, mask decoder and text_hidden_fcs, both, or the '
                             'projector mlp1 (default: %(default)s)')
    parser.add_argument('--ema', action='store_true', help='the averages (the teacher) instead of the trained weights')
    parser.add_argument('--dtype', choices=DTYPES, help='type of the written weights (default: that of the base)')
    parser.add_argument('--metrics', type=Path, help='JSON of an evaluation, for the model card')


def act(args: Namespace) -> int:
    from dual_loop.checkpoints.conversion import convert

    changes = convert(args.config, args.checkpoint, args.out, args.base, args.parts, args.ema, args.dtype, args.metrics)
    for part, tensors in changes.items():
        change, base, differ = (list(column) for column in zip(*tensors))
        print(f'{part}: {len(tensors)} tensors changed, by {(sum(change) / sum(base)) ** 0.5:.2%} of their norm; '
              f'in each {min(differ):.1%} to {max(differ):.1%} of the numbers differ')
    if not changes:
        print('nothing differs from the base')
    print(f'wrote {args.out}')
    return 0


COMMAND = Command('export', ABOUT, add_arguments, act)
