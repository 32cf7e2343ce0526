"""What prompts about one picture have in common, so that it is read once: the picture, mostly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .sequences import Row


@dataclass(frozen=True)
class Prefixes:
    """Groups of rows that begin alike.

    Attributes:
        leaders: of each group, its first row.
        group: of each row, the number of its group.
        lengths: of each group, tokens that its rows have in common; each row has at least one of its own.
    """

    leaders: list[int]
    group: list[int]
    lengths: list[int]


def shared_prefixes(rows: Sequence[Row], image_id: int, num_image_tokens: int) -> Prefixes | None:
    """Groups of the rows about one picture; None unless reading their prefixes once halves the padded tokens.

    Args:
        rows: prompts.
        image_id: the placeholder of image and region tokens.
        num_image_tokens: n, features of an image.
    """
    members: dict[tuple, list[int]] = {}
    for number, row in enumerate(rows):
        images = (row.image, ) if isinstance(row.image, int) else tuple(row.image)
        members.setdefault((images, None if row.soft is None else number), []).append(number)
    ids = [np.asarray(row.input_ids) for row in rows]
    group, lengths = [0] * len(rows), []
    for index, ((images, _), numbers) in enumerate(members.items()):
        first = ids[numbers[0]]
        length = min(len(ids[number]) for number in numbers) - 1
        # The same placeholders stand for other features where a region is repeated.
        regions = np.flatnonzero(first == image_id)[len(images) * num_image_tokens :]
        length = min([length, *regions[:1].tolist()])
        for number in numbers:
            group[number] = index
            other = np.flatnonzero(ids[number][:length] != first[:length])
            length = min([length, *other[:1].tolist()])
        lengths.append(length)
    rest = max(len(each) - lengths[index] for each, index in zip(ids, group))
    whole = len(rows) * max(map(len, ids))
    if 2 * (len(lengths) * max(lengths) + len(rows) * rest) > whole:
        return None
    return Prefixes([numbers[0] for numbers in members.values()], group, lengths)
