"""Rows that begin alike, against their tokens and features themselves."""

import pytest
import torch

from llava_sam2.portable import prompts
from llava_sam2.portable.rows import caption_row, chat_row, soft_segmentation_row
from llava_sam2.portable.shared_prefixes import shared_prefixes

BLOCK = '<img>' + '<IMG_CONTEXT>' * 16 + '</img>\n'


@pytest.fixture
def ask(vocabulary):
    def ask(image, text, tiles=1):
        return chat_row(vocabulary, f'<|user|>\n{BLOCK * tiles}{text}', range(image, image + tiles))
    return ask


@pytest.fixture
def shared(vocabulary):
    return lambda rows: shared_prefixes(rows, vocabulary.image_id, 16)


def features(vocabulary, row):
    """Token, or number of the feature that stands in its place, at each position."""
    index = iter(row.visual_index(16).tolist())
    return [('feature', next(index)) if token == vocabulary.image_id else token for token in row.input_ids]


def test_rows_of_a_picture_share_what_is_equal_and_no_more(vocabulary, ask, shared):
    rows = [ask(0, 'the dog'), ask(3, 'a cat', 2), ask(0, 'the cat'), ask(3, 'a cat', 2), ask(3, 'a big dog', 2),
            ask(0, 'the dog there'), ask(0, 'the'), ask(0, 'there')]
    found = shared(rows)
    assert found.leaders == [0, 1] and found.group == [0, 1, 0, 1, 1, 0, 0, 0]
    for group, length in enumerate(found.lengths):
        members = [features(vocabulary, row) for row, of in zip(rows, found.group) if of == group]
        assert len({tuple(each[:length]) for each in members}) == 1
        at_end = {tuple(each[: length + 1]) for each in members}
        assert len(at_end) > 1 or length + 1 == min(map(len, members)), 'not longer'
        assert length < min(map(len, members)), 'each row has a token of its own'


def test_regions_are_no_common_beginning(vocabulary, shared):
    """Their placeholders are alike, and what stands in their place is not."""
    rows = []
    for cells in (range(4), range(8, 12), range(4)):
        region = torch.zeros(16, dtype=torch.bool)
        region[list(cells)] = True
        rows.append(caption_row(vocabulary, 16, 5, region, []))
    found = shared(rows * 4)
    ends = [place for place, token in enumerate(rows[0].input_ids) if token == vocabulary.image_id][16]
    assert found.lengths == [ends]


def test_nothing_is_shared_where_it_would_not_pay(vocabulary, ask, shared):
    assert shared([ask(number, 'the dog') for number in range(6)]) is None
    assert shared([ask(0, 'x')]) is None
    assert shared([ask(0, 'x'), ask(0, 'y ' * 100)]) is None  # the rest of one is as long as both
    assert shared([chat_row(vocabulary, f'{number} is a number') for number in range(3)]) is None
    assert shared([ask(0, 'x'), ask(0, 'y')] * 3) is not None


def test_soft_captions_are_not_compared(vocabulary, shared):
    row = soft_segmentation_row(vocabulary, 16, 0, torch.zeros(2, 32), prompts.EVALUATION_QUESTION, '')
    assert shared([row] * 6) is None
