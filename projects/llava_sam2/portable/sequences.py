"""Rows of tokens and how a batch of them is padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
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

    def visual_index(self, num_image_tokens: int) -> np.ndarray:
        """(K,) which of the batch's image features, counted through all images, fill the row's image tokens."""
        images = [self.image] if isinstance(self.image, int) else list(self.image)
        tokens = np.arange(num_image_tokens)
        index = [tokens[:0]] + [tokens + image * num_image_tokens for image in images]
        # The whole image first, then the cells of each region once more.
        if self.region is not None:
            cells = np.flatnonzero(self.region.numpy())  # of all regions, one after the other
            index.append(cells % num_image_tokens + images[-1] * num_image_tokens)
        return np.concatenate(index)


@dataclass
class Batch:
    """Padded rows. Padding is neither attended nor counted by the position ids.

    A place is a position in the flattened (B * L) batch.

    Attributes:
        input_ids, attention_mask, position_ids, labels: (B, L).
        visual_places: (K,) where image and region tokens stand.
        visual_index: (K,) which of the batch's image features, counted through all images, fill them.
        slot_places: (S,) where soft captions stand.
        target_places, target_rows: (N,) where supervised tokens stand, and their rows.
        starts: per row, the column of its first token (0 unless left-padded).
    """

    rows: Sequence[Row]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    visual_places: torch.Tensor
    visual_index: torch.Tensor
    slot_places: torch.Tensor
    target_places: torch.Tensor
    target_rows: torch.Tensor
    starts: list[int]


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
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    input_ids, labels = np.full(shape, pad_id), np.full(shape, IGNORE)
    attended, slots = np.zeros(shape, bool), np.zeros(shape, bool)
    starts, visual = [], []
    for index, row in enumerate(rows):
        start = shape[1] - len(row.input_ids) if side == 'left' else 0
        span = slice(start, start + len(row.input_ids))
        input_ids[index, span] = row.input_ids
        labels[index, span] = row.labels
        attended[index, span] = True
        if row.soft is not None:
            slots[index, start + row.slot : start + row.slot + len(row.soft)] = True
        starts.append(start)
        visual.append(row.visual_index(num_image_tokens))
        if (found := row.input_ids.count(image_token_id)) != len(visual[-1]):
            raise ValueError(f'row {index} has {found} image tokens, but its image and region have {len(visual[-1])}')
    targets = labels != IGNORE
    arrays = dict(
        input_ids=input_ids, attention_mask=attended, position_ids=(attended.cumsum(axis=1) - 1).clip(min=0),
        labels=labels, visual_places=np.flatnonzero((input_ids == image_token_id) & attended),
        visual_index=np.concatenate(visual), slot_places=np.flatnonzero(slots),
        target_places=np.flatnonzero(targets), target_rows=targets.nonzero()[0],
    )
    return Batch(rows=rows, starts=starts, **_uploaded(arrays, device))


def on_device(values: Sequence, device: torch.device | str) -> torch.Tensor:
    """A tensor of what the host knows, by a copy that the host does not wait for."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == 'cuda' else tensor


def _uploaded(arrays: Mapping[str, np.ndarray], device: torch.device | str) -> dict[str, torch.Tensor]:
    """The arrays as int64 tensors on a device, by one copy that the host does not wait for."""
    flat = torch.from_numpy(np.concatenate([array.ravel().astype(np.int64) for array in arrays.values()]))
    if torch.device(device).type == 'cuda':
        flat = flat.pin_memory()
    parts = flat.to(device, non_blocking=True).split([array.size for array in arrays.values()])
    return {name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts)}
