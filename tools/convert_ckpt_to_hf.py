"""Write a trained checkpoint as a folder in the released layout: config, weights with LoRA merged, tokenizer.

    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT
    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT --ema
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from dual_loop.engine.checkpoints import read_trained
from llava_sam2.checkpoint import CheckpointError, save_released


def load_trained(config: str, checkpoint: str, ema: bool = False) -> torch.nn.Module:
    """Build the model of a config and load a checkpoint of it strictly, the trained weights or their averages.

    Raises:
        CheckpointError: when the checkpoint holds other tensors than the model trains, or no averages.
    """
    model = MODELS.build(Config.fromfile(config).model)
    trained = read_trained(checkpoint)
    state, expected = (trained.ema, set(model.trainables())) if ema else (trained.trainables, set(model.state_dict()))
    if ema and not state:
        raise CheckpointError(f'{checkpoint} holds no averages: it was trained without TeacherEMAHook')
    if expected != set(state):
        names = sorted(expected ^ set(state))
        raise CheckpointError(f'{checkpoint} does not fit {config}: {len(names)} tensors differ, first {names[0]}')
    model.load_state_dict(state, strict=False)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='iter_N.pth in the work_dir, a file or (from DeepSpeed) a folder')
    parser.add_argument('out', type=Path, help='folder to write; it must not exist')
    parser.add_argument('--ema', action='store_true', help='the averages (the teacher) instead of the trained weights')
    args = parser.parse_args()
    for path in (args.config, args.checkpoint):
        if not os.path.exists(path):
            print(f'convert_ckpt_to_hf: {path} does not exist', file=sys.stderr)
            return 1
    if args.out.exists():
        print(f'convert_ckpt_to_hf: {args.out} exists; remove it or choose another folder', file=sys.stderr)
        return 1
    try:
        model = load_trained(args.config, args.checkpoint, args.ema)
    except (CheckpointError, FileNotFoundError, ValueError) as error:
        print(f'convert_ckpt_to_hf: {error}', file=sys.stderr)
        return 1
    base = getattr(model, 'base', model)
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that the folder is there whole or not at all.
    with tempfile.TemporaryDirectory(dir=args.out.absolute().parent) as partial:
        folder = Path(partial) / args.out.name
        save_released(base.network, folder)
        base.vocabulary.tokenizer.save_pretrained(folder)
        folder.rename(args.out)
    print(f'wrote {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
