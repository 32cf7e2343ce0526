"""Rows of tokens and how a batch of them is padded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

IGNORE = -100


@dataclass
class Row:
    """One sequence that the language model reads.

    Attributes:
        input_ids: token ids; image and region tokens and caption slots hold placeholders.
        labels: same length, ``IGNORE`` where nothing is supervised. ``labels[i]`` is predicted at position i - 1.
        image: index of the row's image in the batch of images; several indices for tiles or frames, none for mere text.
        region: (n,) bool over the last image's tokens, row-major; the cells that are repeated in the region prompt.
            (R, n) for several regions.
        soft: (t, D) caption embeddings that replace the token embeddings at ``slot`` .. ``slot + t - 1``.
        slot: first position of the caption slot.
    """

    input_ids: list[int]
    labels: list[int]
    image: int | Sequence[int]
    region: torch.Tensor | None = None
    soft: torch.Tensor | None = None
    slot: int = 0

    def __post_init__(self):
        if len(self.input_ids) != len(self.labels):
            raise ValueError(f'{len(self.input_ids)} tokens but {len(self.labels)} labels')

    def visual_index(self, num_image_tokens: int) -> torch.Tensor:
        """(K,) which of the batch's image features, counted through all images, fill the row's image tokens."""
        images = [self.image] if isinstance(self.image, int) else list(self.image)
        tokens = torch.arange(num_image_tokens)
        index = [tokens[:0]] + [tokens + image * num_image_tokens for image in images]
        # The whole image first, then the cells of each region once more.
        for region in () if self.region is None else self.region.reshape(-1, num_image_tokens):
            index.append(region.nonzero()[:, 0] + images[-1] * num_image_tokens)
        return torch.cat(index)


@dataclass
class Batch:
    """Padded rows. Padding is neither attended nor counted by the position ids.

    Attributes:
        input_ids, attention_mask, position_ids, labels: (B, L).
        visual_mask: (B, L) bool, image and region tokens.
        visual_index: (K,) which of the batch's image features, counted through all images, fill them in flat order.
        slot_mask: (B, L) bool, positions filled by soft captions.
        starts: per row, the column of its first token (0 unless left-padded).
    """

    rows: Sequence[Row]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    visual_mask: torch.Tensor
    slot_mask: torch.Tensor
    starts: list[int]
    visual_index: torch.Tensor

    def first(self, count: int) -> 'Batch':
        """The first ``count`` rows."""
        return Batch(  # type: ignore[call-arg]
            self.rows[:count],
            *(getattr(self, name)[:count] for name in (
                'input_ids', 'attention_mask', 'position_ids', 'labels', 'visual_mask', 'slot_mask', 'starts'
            )),
            self.visual_index,
        )


def pad_rows(
    rows: Sequence[Row],
    pad_id: int,
    image_token_id: int,
    num_image_tokens: int,
    device: torch.device | str = 'cpu',
    side: str = 'right',
) -> Batch:
    """Pad rows to the longest.

    Args:
        rows: at least one.
        pad_id: fills the padding.
        image_token_id: the placeholder of image and region tokens.
        num_image_tokens: n, features of an image.
        device: of the tensors.
        side: ``'left'`` for prompts that are continued by generation, so that no pad precedes the first token.

    Raises:
        ValueError: when a row has another number of image tokens than its image and region give.
    """
    length = max(len(row.input_ids) for row in rows)
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    slot_mask = torch.zeros(shape, dtype=torch.bool)
    starts, visual = [], []
    for index, row in enumerate(rows):
        start = length - len(row.input_ids) if side == 'left' else 0
        span = slice(start, start + len(row.input_ids))
        input_ids[index, span] = torch.tensor(row.input_ids)
        labels[index, span] = torch.tensor(row.labels)
        attention_mask[index, span] = 1
        if row.soft is not None:
            slot_mask[index, start + row.slot : start + row.slot + len(row.soft)] = True
        starts.append(start)
        visual.append(row.visual_index(num_image_tokens))
        if (found := row.input_ids.count(image_token_id)) != len(visual[-1]):
            raise ValueError(f'row {index} has {found} image tokens, but its image and region have {len(visual[-1])}')
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    visual_mask = (input_ids == image_token_id) & attention_mask.bool()
    return Batch(
        rows=rows,
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        position_ids=position_ids.to(device),
        labels=labels.to(device),
        visual_mask=visual_mask.to(device),
        slot_mask=slot_mask.to(device),
        starts=starts,
        visual_index=torch.cat(visual).to(device),
    )
