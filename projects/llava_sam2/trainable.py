"""Which tensors of a network are trained: parts that a config names, without those that can never get a gradient."""

import re
from collections.abc import Sequence

from torch import nn

from .portable.network import Sa2VANetwork

#: What a config may name as trainable, as prefixes of network parameters.
TRAINABLE_PARTS = {
    'vision_model': 'vision_model.',
    'mlp1': 'mlp1.',
    'language_model': 'language_model.',
    'text_hidden_fcs': 'text_hidden_fcs.',
    'image_encoder': 'grounding_encoder.vision_encoder.',
    'mask_decoder': 'grounding_encoder.mask_decoder.',
}
#: The twelve decoder tensors that this recipe never gives a gradient.
_NEVER_TRAINED = (
    'grounding_encoder.mask_decoder.iou_prediction_head.',
    'grounding_encoder.mask_decoder.pred_obj_score_head.',
)
_HYPERNETWORKS = 'grounding_encoder.mask_decoder.output_hypernetworks_mlps.'
#: Whose gradient may be zero for many steps, or zero but for rounding: the hypernetworks of masks that the decoder's
#: estimate chooses by turns, and biases that softmax does not see since all keys share them.
_RARELY_REACHED = re.compile(r'output_hypernetworks_mlps\.|\bk_proj\.bias$')


def check_parts(trainable: Sequence[str]) -> None:
    """Raise ValueError for a part that there is not."""
    if unknown := set(trainable) - set(TRAINABLE_PARTS):
        raise ValueError(f'model.trainable names {sorted(unknown)}, known parts are {list(TRAINABLE_PARTS)}')


def unused_masks(network: Sa2VANetwork) -> tuple[str, ...]:
    """Prefixes of the hypernetworks of masks that ``mask_selection`` never takes.

    ``single`` takes the second of the decoder's masks, ``predicted_iou`` one of all but the first. The rows of the
    other masks' tokens do get a gradient, through attention.
    """
    count = len(network.grounding_encoder.mask_decoder.output_hypernetworks_mlps)
    unused = [0, *range(2, count)] if network.config.mask_selection == 'single' else [0]
    return tuple(f'{_HYPERNETWORKS}{number}.' for number in unused)


def has_unused_masks(names: Sequence[str]) -> bool:
    """Whether tensors of a mask that no selection takes are among trained ones, by their names in any model."""
    return any(f'{_HYPERNETWORKS}0.' in name for name in names)


def freeze(network: Sa2VANetwork, trainable: Sequence[str], train_unused_masks: bool = False) -> None:
    """Let the named parts require gradients, in fp32, and nothing else.

    Args:
        network: whose parameters are set.
        trainable: keys of :data:`TRAINABLE_PARTS`.
        train_unused_masks: leave also trainable what :func:`unused_masks` names.
    """
    prefixes = tuple(TRAINABLE_PARTS[part] for part in trainable)
    never = _NEVER_TRAINED + (() if train_unused_masks else unused_masks(network))
    parameter: nn.Parameter
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(prefixes) and not name.startswith(never)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def rarely_reached(name: str) -> bool:
    """Whether a trained tensor may go without a gradient for long without any fault."""
    return _RARELY_REACHED.search(name) is not None
