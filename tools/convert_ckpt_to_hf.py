"""Write a trained checkpoint as a folder that loads without this project, LoRA merged into the base in fp32.

    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT
    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT --parts lora --ema --dtype bf16

What is not selected by --parts keeps its value in the base. Prints what changed, and by how much.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

from dual_loop.checkpoints.conversion import convert
from dual_loop.checkpoints.trained_model import EXPORTED_DTYPES, EXPORTED_PARTS
from dual_loop.stop import run_command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='iter_N.pth in the work_dir, a file or (from DeepSpeed) a folder')
    parser.add_argument('out', type=Path, help='folder to write; it must not exist')
    parser.add_argument('--base', help='folder of the base weights, if not the one in the config')
    parser.add_argument('--parts', choices=EXPORTED_PARTS, default='full',
                        help='trained parts to take: all, LoRA, mask decoder and text_hidden_fcs, both, or the '
                             'projector mlp1 (default: %(default)s)')
    parser.add_argument('--ema', action='store_true', help='the averages (the teacher) instead of the trained weights')
    parser.add_argument('--dtype', choices=EXPORTED_DTYPES,
                        help='type of the written weights (default: that of the base)')
    parser.add_argument('--metrics', type=Path, help='JSON of an evaluation, for the model card')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        changes = convert(**vars(args))
    except (OSError, ValueError) as error:
        print(f'convert_ckpt_to_hf: {error}', file=sys.stderr)
        return 1
    for part, tensors in changes.items():
        change, base, differ = (list(column) for column in zip(*tensors))
        print(f'{part}: {len(tensors)} tensors changed, by {(sum(change) / sum(base)) ** 0.5:.2%} of their norm; '
              f'in each {min(differ):.1%} to {max(differ):.1%} of the numbers differ')
    if not changes:
        print('nothing differs from the base')
    print(f'wrote {args.out}')
    return 0


if __name__ == '__main__':
    run_command(main)
