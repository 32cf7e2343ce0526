"""Loop 2: caption to mask' to caption."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from mmengine.registry import MODELS

from llava_sam2.batches import usable_weights
from llava_sam2.text_rows import TextRows

from .loop import CAPTION_PATH, Loop, Passage, check_caption_len, detached

if TYPE_CHECKING:
    from .dual_loop_model import DualLoopModel


@MODELS.register_module()
class CaptionLoop(Loop):
    """Find mask' from a human caption, then describe mask'; the description is compared with the caption.

    mask' enters the second step through the region grid, without gradient, so the mask path learns nothing here unless
    ``mask_weight`` says so.

    Args:
        max_caption_len: tokens of a caption in the segmentation slot, at most.
        answer_weight: weight of the cross-entropy of the answer that holds ``[SEG]``.
        short_captions: a phrase is asked for with the question for a short caption. Otherwise phrases and descriptions
            answer one question, and the model says now one, now the other.
        mask_weight: weight of mask' against the data set's own mask; the loop is defined without it.
        name: of the loop.
    """

    name = 'loop2'
    uses_teacher = False
    losses = ('caption', 'answer', 'mask')
    needs_captions = True

    def __init__(self, max_caption_len: int = 256, answer_weight: float = 1.0, mask_weight: float = 0.0,
                 short_captions: bool = False, name: str = 'loop2'):
        self.name = name
        self.max_caption_len = check_caption_len(max_caption_len)
        self.answer_weight = answer_weight
        self.mask_weight = mask_weight
        self.short_captions = bool(short_captions)
        self.reaches = None if mask_weight else CAPTION_PATH

    @property
    def key(self) -> int | str:
        return 2 if self.name == 'loop2' else self.name

    def forward(self, model: 'DualLoopModel', data: Mapping[str, Any], step: int, preview: bool = False,
                poll: Callable[[], None] | None = None) -> dict[str, Any]:
        self.refuse_missing_captions(data)
        base, captions = model.base, data['captions']
        image2 = data['image2'].tolist()
        images = base.encode(data['pixel_values'], data['g_pixel_values'], image2)
        rows = [
            base.text_rows.segmentation(step, *each, self.max_caption_len)
            for each in zip(data['sample_ids'], image2, captions)
        ]
        batch, hidden_states = base.read_rows(rows, images)
        with nullcontext() if self.mask_weight else torch.no_grad():
            logits = base.segment(rows, hidden_states, images)
        regions = predicted_regions(logits.detach(), base.config.region_grid)
        described = [base.text_rows.description(*each)
                     for each in zip(image2, regions.cpu(), captions, self._asks_short(data))]
        caption_batch, caption_states = base.read_rows(described, images)
        weights = usable_weights(data)
        parts = dict(
            caption=weights @ base.token_loss(caption_batch, caption_states),
            answer=weights @ base.token_loss(batch, hidden_states),
        )
        loss = parts['caption'] + self.answer_weight * parts['answer']
        if self.mask_weight:
            mask, dice = base.mask_losses(logits, data['masks2'], base.keys(step, 'points', data['sample_ids']))
            parts['mask'] = weights @ (mask + dice)
            loss = loss + self.mask_weight * parts['mask']
        output = dict(loss=loss) | detached(parts)
        output['empty_mask'] = (logits.detach() <= 0).flatten(1).all(dim=1).float().mean()
        return output

    def _asks_short(self, data: Mapping[str, Any]) -> list[bool]:
        return [self.short_captions and not describes for describes in data['describes']]

    def passages(self, rows: TextRows, data: Mapping[str, Any], row: int, step: int) -> Iterator[Passage]:
        image, caption = int(data['image2'][row]), data['captions'][row]
        yield Passage("Step A: find mask'",
                      rows.segmentation(step, data['sample_ids'][row], image, caption, self.max_caption_len),
                      learned=self.answer_weight > 0)
        yield Passage("Step B: describe mask'", rows.description(image, data['prompt_masks'][row], caption,
                                                                self._asks_short(data)[row]),
                      "Region tokens of the data set's own mask; in training those of mask' from step A.")


def predicted_regions(logits: torch.Tensor, grid: int) -> torch.Tensor:
    """Cells (R, grid, grid) that predicted masks touch; an empty prediction turns on the cell of its highest logit."""
    cells = torch.nn.functional.adaptive_max_pool2d(logits[:, None].float(), grid)[:, 0]
    best = torch.zeros_like(cells, dtype=torch.bool).flatten(1)
    best.scatter_(1, cells.flatten(1).argmax(dim=1, keepdim=True), True)
    return (cells > 0) | best.view_as(cells)
