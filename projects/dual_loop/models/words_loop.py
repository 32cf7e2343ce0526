"""Words and regions without a language model: a network learns to see before it learns to speak."""

import re
from collections.abc import Callable, Mapping, Sequence
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
#: Label of a row whose caption has no word of a kind.
UNNAMED = -100


@MODELS.register_module()
class WordsLoop(Loop):
    """The words of a caption from its region, and the region from the words.

    Words are given in kinds, such as colours, of which an object has one. A region's tokens, averaged, are compared
    with the embeddings of all words of a kind; the one that the caption says should be nearest. (With all words in one
    distribution colours had 0.69 where they had 0.96 so, after as many steps.) The embeddings of the words that the
    caption says, averaged, stand where the ``[SEG]`` state would, and the mask decoder should find the region.

    The language model takes no part, so a step is cheap and its gradient short; its random embeddings are as good as
    any. It comes before supervised training of a network from random weights, as the vision tower and SAM 2 of the real
    ones were trained before they met a language model.

    Args:
        kinds: for each kind the things that it tells apart, each as its words, synonyms among them: ``[[['small',
            'little'], ['large']], [['red'], ['blue']]]``. Of a kind the first word that a caption has counts.
        mask_weight: of the masks against the words.
        name: of the loop.
    """

    uses_teacher = False
    reaches = ('projector', 'vision_model', 'text_hidden_fcs', 'decoder', 'image_encoder')
    losses = ('words', 'right', 'mask', 'dice')
    needs_captions = True

    def __init__(self, kinds: Sequence[Sequence[Sequence[str]]], mask_weight: float = 1.0, name: str = 'words'):
        self.kinds = kinds
        self.mask_weight = mask_weight
        self.name = name
        self._places = {word: (kind, thing) for kind, things in enumerate(kinds) for thing, words in enumerate(things)
                        for word in words}

    def forward(self, model: 'DualLoopModel', data: Mapping[str, Any], step: int, preview: bool = False,
                poll: Callable[[], None] | None = None) -> dict[str, Any]:
        self.refuse_missing_captions(data)
        base, network = model.base, model.base.network
        images = base.encode(data['pixel_values'], data['g_pixel_values'], data['image2'].tolist())
        device = data['masks2'].device
        embeddings = network.token_embeddings().detach().float()
        named = torch.tensor([self.named(caption) for caption in data['captions']]).to(device, non_blocking=True)
        weights = usable_weights(data)

        regions = data['prompt_masks'].flatten(1).to(device, non_blocking=True).float()
        regions = regions / regions.sum(dim=1, keepdim=True).clamp(min=1)
        features = base.project(images)[data['image1'].to(device, non_blocking=True)].float()
        seen = torch.einsum('rn,rnd->rd', regions, features)
        words, right, asked = 0.0, [], torch.zeros_like(seen)
        for kind, things in enumerate(self.kinds):
            firsts = [base.vocabulary.encode(f' {things[thing][0]}')[0] for thing in range(len(things))]
            of_kind = F.normalize(embeddings[torch.tensor(firsts).to(device, non_blocking=True)], dim=-1)
            scores, labels = SCALE * seen @ of_kind.t(), named[:, kind]
            words = words + F.cross_entropy(scores, labels, ignore_index=UNNAMED, reduction='none')
            is_named = labels != UNNAMED
            right.append(weights @ ((scores.argmax(dim=1) == labels) / is_named.float().mean().clamp(min=1e-6)))
            asked = asked + of_kind[labels.clamp(min=0)] * is_named[:, None]
        with base.precision():
            queries = network.text_hidden_fcs(asked / len(self.kinds) * asked.shape[1] ** 0.5)
        logits = base.decode_masks(queries, data['image2'].tolist(), images)
        mask, dice = base.mask_losses(logits, data['masks2'], base.keys(step, 'points', data['sample_ids']))
        parts = dict(words=weights @ words, mask=weights @ mask, dice=weights @ dice)
        loss = parts['words'] + self.mask_weight * (parts['mask'] + parts['dice'])
        figures = {f'right_{kind}': share for kind, share in enumerate(right)}
        return dict(loss=loss, right=torch.stack(right).mean().detach()) | detached(parts) | detached(figures)

    def named(self, caption: str) -> list[int]:
        """Of each kind the thing that a caption names first, or :data:`UNNAMED`."""
        found = [UNNAMED] * len(self.kinds)
        for word in re.findall(r'[a-z]+', caption.lower()):
            kind, thing = self._places.get(word, (None, None))
            if kind is not None and found[kind] == UNNAMED:
                found[kind] = thing
        return found
