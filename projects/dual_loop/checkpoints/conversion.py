"""From a checkpoint of training to a folder that loads without this project, LoRA merged into the base in fp32."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer

from dual_loop.config_files import read_config
from llava_sam2.paths import resolve
from llava_sam2.weights.export import write_release

from .files import read_trained
from .model_card import model_card
from .trained_model import EXPORTED_DTYPES, build, check_base, select

#: What an export is made of.
GIVE = dict(config='give the config of the run, which also lies in its vis_data/config.py',
            checkpoint='give a checkpoint of the run, the file or folder that its last_checkpoint names',
            base='give the folder of the weights that training started from',
            metrics='give the JSON that an evaluation wrote with --out')


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


def convert(config: str | Path, checkpoint: str | Path, out: str | Path, base: str | None = None, parts: str = 'full',
            ema: bool = False, dtype: str | None = None, metrics: str | Path | None = None) -> dict[str, list]:
    """Write a trained checkpoint as a folder in the released layout.

    Args:
        config: that the checkpoint was trained with.
        checkpoint: file, or (from DeepSpeed) folder.
        out: folder to write; it must not exist.
        base: folder of the base weights, if not the one in the config.
        parts: a key of ``EXPORTED_PARTS``.
        ema: the averages instead of the trained weights.
        dtype: a key of ``EXPORTED_DTYPES``; default that of the base.
        metrics: JSON of an evaluation, for the model card.

    Returns:
        See :func:`load`.

    Raises:
        FileNotFoundError: something to read is not there.
        FileExistsError: ``out`` is.
        ValueError: checkpoint, config and base do not belong together.
    """
    out = Path(out)
    _require(config=config)
    cfg = read_config(config)
    _require(checkpoint=checkpoint, base=base, metrics=metrics)
    if out.exists():
        raise FileExistsError(f'{out} exists; remove it or choose another folder')
    figures = _figures(Path(metrics)) if metrics else None
    trained = read_trained(checkpoint)
    model, base_model = build(cfg, base)
    check_base(trained, base_model, str(checkpoint))
    written_as = EXPORTED_DTYPES[dtype] if dtype else base_model.dtype
    changes = load(model, select(trained, model, parts, ema, str(checkpoint)), written_as)
    source = cfg.model.get('base', cfg.model).get('pretrained')
    card = model_card(
        {key: cfg[key] for key in cfg}, base=str(source or 'random weights'), fingerprint=base_model.fingerprint,
        parts=parts, checkpoint=Path(checkpoint).name, step=trained.step, averages=ema, metrics=figures, source=source)
    write_release(base_model.network, out, base_model.vocabulary.tokenizer, dtype=written_as, card=card,
                  generation=generation_settings(source))
    return changes


def _require(**paths: str | Path | None) -> None:
    for kind, path in paths.items():
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f'{path} does not exist: {GIVE[kind]}')


def _figures(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding='utf-8'))['metrics']
    except (ValueError, KeyError, TypeError, IsADirectoryError) as error:
        raise ValueError(f'{file} holds no figures of an evaluation: {GIVE["metrics"]}') from error


def generation_settings(source: str | Mapping | None) -> dict:
    """What generation_config.json of a base folder says; nothing for other sources."""
    file = resolve(source) / 'generation_config.json' if isinstance(source, str) else None
    if file is None or not file.is_file():
        return {}
    return json.loads(file.read_text(encoding='utf-8'))
