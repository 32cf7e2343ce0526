"""Words and regions without a language model: a network learns to see before it learns to speak."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from llava_sam2.batches import usable_weights

from .loop import Loop, detached

if TYPE_CHECKING:
    from .dual_loop_model import DualLoopModel

#: Sharpness of the distribution over words of a region whose features have unit length.
SCALE = 10.0


@MODELS.register_module()
class WordsLoop(Loop):
    """The words of a caption from its region, and the region from the words, each as a bag.

    A region's tokens, averaged, are compared with the word embeddings of all tokens: those of the caption should be
    near. The caption's word embeddings, averaged, stand where the ``[SEG]`` state would, and the mask decoder should
    find the region. The language model takes no part, so a step is cheap and its gradient short; its random embeddings
    are as good as any. It comes before supervised training of a network from random weights, as the vision tower and
    SAM 2 of the real ones were trained before they met a language model.

    Args:
        mask_weight: of the masks against the words.
        name: of the loop.
    """

    uses_teacher = False
    losses = ('words', 'mask', 'dice')
    reaches = ('projector', 'vision_model', 'text_hidden_fcs', 'decoder', 'image_encoder')
    needs_captions = True

    def __init__(self, mask_weight: float = 1.0, name: str = 'words'):
        self.name = name
        self.mask_weight = mask_weight

    def forward(self, model: 'DualLoopModel', data: Mapping[str, Any], step: int, preview: bool = False,
                poll: Callable[[], None] | None = None) -> dict[str, Any]:
        self.refuse_missing_captions(data)
        base, network = model.base, model.base.network
        images = base.encode(data['pixel_values'], data['g_pixel_values'], data['image2'].tolist())
        embeddings = F.normalize(network.token_embeddings().detach().float(), dim=-1)
        device = embeddings.device
        bags = bags_of_words([base.vocabulary.encode(' ' + caption) for caption in data['captions']],
                             len(embeddings)).to(device, non_blocking=True)
        regions = data['prompt_masks'].flatten(1).to(device, non_blocking=True).float()
        regions = regions / regions.sum(dim=1, keepdim=True).clamp(min=1)
        features = base.project(images)[data['image1'].to(device, non_blocking=True)].float()
        seen = torch.einsum('rn,rnd->rd', regions, features)
        words = -(bags * (SCALE * seen @ embeddings.t()).log_softmax(dim=-1)).sum(dim=1)
        with base.precision():
            asked = network.text_hidden_fcs((bags @ embeddings) * embeddings.shape[1] ** 0.5)
        logits = base.decode_masks(asked, data['image2'].tolist(), images)
        mask, dice = base.mask_losses(logits, data['masks2'],
                                      [base.generator(step, 'points', sample) for sample in data['sample_ids']])
        weights = usable_weights(data)
        parts = dict(words=weights @ words, mask=weights @ mask, dice=weights @ dice)
        return dict(loss=parts['words'] + self.mask_weight * (parts['mask'] + parts['dice'])) | detached(parts)


def bags_of_words(captions: list[list[int]], size: int) -> torch.Tensor:
    """(R, size): each row is spread evenly over the distinct tokens of its caption."""
    bags = torch.zeros(len(captions), size)
    for bag, ids in zip(bags, captions):
        bag[list(set(ids))] = 1 / max(1, len(set(ids)))
    return bags
