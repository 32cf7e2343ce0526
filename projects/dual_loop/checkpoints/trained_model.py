"""A config and a checkpoint of it: the model as training starts with it, and what was learned."""

import warnings

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS

from dual_loop.checkpoints.files import Trained
from llava_sam2.download import require_weights
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.trainable import has_unused_masks
from llava_sam2.weights.loading import CheckpointError

#: What each choice of parts takes from a checkpoint, as parts of names.
EXPORTED_PARTS = {
    'full': ('', ),
    'lora': ('.lora_', ),
    'sam2': ('.mask_decoder.', '.text_hidden_fcs.'),
    'lora+sam2': ('.lora_', '.mask_decoder.', '.text_hidden_fcs.'),
    'proj': ('.mlp1.', ),
}
#: Types in which weights are exported and evaluated, by the names that command lines know.
EXPORTED_DTYPES = dict(bf16=torch.bfloat16, fp32=torch.float32)


def build(cfg: Config, base: str | None) -> tuple[torch.nn.Module, VideoLLaVASAMModel]:
    """The model of a config as training starts with it, and the base model in it; ``base`` replaces its weights."""
    settings = cfg.model
    if base is not None:
        settings.get('base', settings).update(pretrained=base, tokenizer=base)
    require_weights(settings)
    model = MODELS.build(settings)
    return model, getattr(model, 'base', model)


def check_base(trained: Trained, base: VideoLLaVASAMModel, checkpoint: str) -> None:
    """Refuse to add what was learned on other weights than these: LoRA means nothing on another base.

    Raises:
        CheckpointError: naming both fingerprints.
    """
    learned_on = trained.run.get('weights')
    if learned_on is None:
        if not base.random_weights:
            warnings.warn(f'{checkpoint} does not say which weights it was trained from (it was not written by the '
                          'loop of dual-loop), so that could not be checked', stacklevel=2)
    elif learned_on != base.fingerprint:
        raise CheckpointError(f'{checkpoint} was trained from other base weights (sha256 {learned_on}) than the ones '
                              f'given (sha256 {base.fingerprint}): give the right folder with --base')


def select(trained: Trained, model: torch.nn.Module, parts: str, ema: bool, checkpoint: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that the choice names, after checking that it fits the model.

    Raises:
        CheckpointError: other tensors than the model trains, or no averages.
    """
    state = trained.ema if ema else trained.trainables
    if ema and not state:
        raise CheckpointError(f'{checkpoint} holds no averages: it was trained without TeacherEMAHook')
    expected = dict(model.trainables() if ema else model.state_dict())
    if has_unused_masks([*state]) and (unused := _unused_masks(model)).keys() - expected.keys():
        print_log(f'{checkpoint} holds {len(unused)} tensors of masks that mask_selection never takes, which version '
                  '0.1.0 trained: they are taken over, and nothing depends on them', 'current')
        expected |= unused
    if trained.run.get('weights') == 'random weights' and state.keys() < expected.keys():
        raise CheckpointError(f'{checkpoint} was trained from random weights, which it does not hold (a checkpoint of '
                              'DeepSpeed has the trained tensors only, and so have averages): it cannot be used alone')
    if wrong := sorted(expected.keys() ^ state.keys()):
        raise CheckpointError(f'{checkpoint} does not fit the config: {len(wrong)} tensors are in one of them only, '
                              f'first {wrong[0]}')
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(f'{checkpoint} does not fit the config: {name} is {tuple(tensor.shape)}, expected '
                                  f'{tuple(expected[name].shape)}')
    return {name: tensor for name, tensor in state.items() if any(part in f'.{name}' for part in EXPORTED_PARTS[parts])}


def _unused_masks(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    prefix = 'base.' if hasattr(model, 'base') else ''
    return {prefix + name: parameter for name, parameter in getattr(model, 'base', model).unused_masks().items()}
