"""A supervised stream beside the loops: referring segmentation and region captions of captioned objects."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmengine.registry import MODELS

from llava_sam2.text_rows import TextRows

from .loop import Loop, Passage, detached

if TYPE_CHECKING:
    from .dual_loop_model import DualLoopModel


@MODELS.register_module()
class SupervisedLoop(Loop):
    """Plain supervised training beside the loops: keeps a trained model from forgetting and anchors language.

    By default its gradient is added to that of loop 1 before surgery, so it is kept whole. As a gradient of its own
    behind the two (``joins=None``) whatever it has in common with theirs would be projected away by ``orthogonal``.

    Args:
        weight: of the whole stream.
        answer_weight, caption_weight: of the cross-entropies of answers and of descriptions in it.
        short_captions: phrases are captions too, of the question for a short one.
        joins: name of the loop whose gradient it is added to, or None.
        name: of the loop.
    """

    name = 'supervised'
    uses_teacher = False
    losses = ('mask', 'dice', 'answer', 'caption')
    needs_captions = True

    def __init__(self, weight: float = 1.0, answer_weight: float = 1.0, caption_weight: float = 1.0,
                 short_captions: bool = False, joins: str | None = 'loop1', name: str = 'supervised'):
        self.name = name
        self.joins = joins
        self.weight = weight
        self.answer_weight = answer_weight
        self.caption_weight = caption_weight
        self.short_captions = short_captions

    def forward(self, model: 'DualLoopModel', data: Mapping[str, Any], step: int, preview: bool = False,
                poll: Callable[[], None] | None = None) -> dict[str, Any]:
        self.refuse_missing_captions(data)
        losses = model.base.supervised_losses(data, step, self.short_captions)
        parts = {name.removeprefix('loss_'): part for name, part in losses.items()}
        loss = parts['mask'] + parts['dice']
        loss = loss + self.answer_weight * parts['answer'] + self.caption_weight * parts['caption']
        return dict(loss=self.weight * loss) | detached(parts)

    def passages(self, rows: TextRows, data: Mapping[str, Any], row: int, step: int) -> Iterator[Passage]:
        yield from supervised_passages(rows, data, row, step, self.short_captions)


def supervised_passages(rows: TextRows, data: Mapping[str, Any], row: int, step: int, short_captions: bool = False
                        ) -> Iterator[Passage]:
    """The sequences of plain supervised training, here and without any loop."""
    caption = data['captions'][row]
    yield Passage('Find the mask',
                  rows.segmentation(step, data['sample_ids'][row], int(data['image2'][row]), caption))
    if (describes := data['describes'][row]) or short_captions:
        yield Passage('Describe the mask',
                      rows.description(int(data['image1'][row]), data['prompt_masks'][row], caption, not describes))
