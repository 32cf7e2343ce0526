"""From a checkpoint of training to a folder that loads without this project, LoRA merged into the base in fp32."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from peft.tuners.lora import LoraLayer

from llava_sam2.paths import resolve
from llava_sam2.weights.export import write_release

from .files import read_trained
from .model_card import model_card
from .trained_model import EXPORTED_DTYPES, build, check_base, select


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


def convert(args: Namespace) -> dict[str, list]:
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
    dtype = EXPORTED_DTYPES[args.dtype] if args.dtype else base.dtype
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
