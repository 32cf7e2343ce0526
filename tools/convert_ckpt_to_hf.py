"""Write a trained checkpoint as a folder that loads without this project, LoRA merged into the base in fp32.

    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT
    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT --parts lora --ema --dtype bf16

What is not selected by --parts keeps its value in the base. Prints what changed, and by how much.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from peft.tuners.lora import LoraLayer

from dual_loop.engine.checkpoints import read_trained
from dual_loop.model_card import model_card
from dual_loop.trained_model import DTYPES, PARTS, build, check_base, select
from llava_sam2.export import write_release
from llava_sam2.paths import resolve

@torch.no_grad()
def load(model: torch.nn.Module, selected: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, list]:
    """Put the selected tensors into the model.

    Returns:
        Part of the model -> for each changed tensor |change|^2, |base|^2 and the share of numbers that differ as
        ``dtype``.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict(keep_vars=False).items() if name in selected}
    model.load_state_dict(selected, strict=False)
    changes: dict[str, list] = {}

    def note(name: str, base: torch.Tensor, change: torch.Tensor) -> None:
        part = next(part for part in ('language_model', 'mlp1', 'text_hidden_fcs', 'mask_decoder', 'other')
                    if f'{part}.' in name or part == 'other')
        if change.any():
            differ = ((base.float() + change).to(dtype) != base.to(dtype)).float().mean().item()
            changes.setdefault(part, []).append((change.norm().item() ** 2, base.float().norm().item() ** 2, differ))

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            change = sum(module.get_delta_weight(adapter).float() for adapter in module.active_adapters)
            note(f'{name}.weight', module.get_base_layer().weight, change)
    for name, base in before.items():
        if '.lora_' not in name:
            note(name, base, selected[name].float() - base.float())
    return changes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    return parser.parse_args()


def convert(args: argparse.Namespace) -> dict[str, list]:
    """Write the folder; see :func:`load` for what it returns."""
    for path in filter(None, (args.config, args.checkpoint, args.base, args.metrics)):
        if not Path(path).exists():
            raise FileNotFoundError(f'{path} does not exist')
    if args.out.exists():
        raise FileExistsError(f'{args.out} exists; remove it or choose another folder')
    metrics = json.loads(args.metrics.read_text(encoding='utf-8'))['metrics'] if args.metrics else None
    trained = read_trained(args.checkpoint)
    cfg = Config.fromfile(args.config)
    model, base = build(cfg, args.base)
    check_base(trained, base, args.checkpoint)
    dtype = DTYPES[args.dtype] if args.dtype else base.dtype
    changes = load(model, select(trained, model, args.parts, args.ema, args.checkpoint), dtype)
    source = cfg.model.get('base', cfg.model).get('pretrained')
    card = model_card(
        {key: cfg[key] for key in cfg}, base=str(source or 'random weights'), fingerprint=base.fingerprint,
        parts=args.parts, checkpoint=Path(args.checkpoint).name, step=trained.step, averages=args.ema, metrics=metrics)
    write_release(base.network, args.out, base.vocabulary.tokenizer, dtype=dtype, card=card,
                  generation=generation_settings(source))
    return changes


def generation_settings(source: str | Mapping | None) -> dict:
    """What generation_config.json of a base folder says; nothing for other sources."""
    file = resolve(source) / 'generation_config.json' if isinstance(source, str) else None
    if file is None or not file.is_file():
        return {}
    return json.loads(file.read_text(encoding='utf-8'))


def main() -> int:
    args = parse_args()
    try:
        changes = convert(args)
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
    sys.exit(main())
