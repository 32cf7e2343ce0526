"""Rows, their padding, and that padding is neither read nor counted."""

import pytest
import torch

from llava_sam2.portable.sequences import IGNORE, Row, pad_rows

PAD, IMAGE = 0, 9


def row(*ids, image=0, **options):
    return Row(list(ids), [IGNORE] * len(ids), image, **options)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_layout(side):
    rows = [
        Row([5, IMAGE, IMAGE, 6], [IGNORE, IGNORE, IGNORE, 6], 1),
        row(IMAGE, IMAGE, 5, IMAGE, 7, 8, image=2, region=torch.tensor([False, True])),
    ]
    batch = pad_rows(rows, PAD, IMAGE, 2, side=side)
    pads = [PAD, PAD]
    mine = [5, IMAGE, IMAGE, 6]
    assert batch.input_ids[0].tolist() == (mine + pads if side == 'right' else pads + mine)
    assert batch.attention_mask[0].tolist() == ([1] * 4 + [0] * 2 if side == 'right' else [0] * 2 + [1] * 4)
    attended = batch.attention_mask[0].bool()
    assert batch.position_ids[0, attended].tolist() == [0, 1, 2, 3]
    assert batch.position_ids[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.labels[0, attended].tolist() == [IGNORE, IGNORE, IGNORE, 6]
    assert (batch.labels[0, ~attended] == IGNORE).all()
    assert batch.starts == ([0, 0] if side == 'right' else [2, 0])
    # Image 1 whole, image 2 whole and its second token once more.
    assert batch.visual_index.tolist() == [2, 3, 4, 5, 5]
    assert batch.visual_places.tolist() == (batch.input_ids == IMAGE).flatten().nonzero()[:, 0].tolist()
    assert batch.target_places.tolist() == [3 if side == 'right' else 5] and batch.target_rows.tolist() == [0]


def test_pads_that_look_like_images_are_no_images():
    batch = pad_rows([row(IMAGE, 1), row(IMAGE, 1, 2)], IMAGE, IMAGE, 1)
    assert batch.visual_places.tolist() == [0, 3]


def test_slot_moves_with_the_padding():
    rows = [row(1, PAD, PAD, 2, soft=torch.zeros(2, 4), slot=1), row(1, 2, 3, 4, 5)]
    left = pad_rows(rows, PAD, IMAGE, 0, side='left')
    assert left.slot_places.tolist() == [2, 3]
    assert pad_rows(rows, PAD, IMAGE, 0).slot_places.tolist() == [1, 2]


@pytest.mark.parametrize('ids, region', [((IMAGE,), None), ((IMAGE, IMAGE), torch.tensor([True, False]))])
def test_wrong_number_of_image_tokens_is_refused(ids, region):
    with pytest.raises(ValueError, match=r'row 1 has \d image tokens, but its image and region have \d'):
        pad_rows([row(IMAGE, IMAGE), row(*ids, region=region)], PAD, IMAGE, 2)


def test_labels_need_the_length_of_the_tokens():
    with pytest.raises(ValueError, match='3 tokens but 2 labels'):
        Row([1, 2, 3], [1, 2], 0)


def test_tiles_frames_several_regions_and_mere_text():
    regions = torch.tensor([[True, False], [True, True]])
    rows = [row(*[IMAGE] * 7, image=(1, 2), region=regions), row(5, 6, image=())]
    batch = pad_rows(rows, PAD, IMAGE, 2)
    # Both images whole, then the cells of each region of the second.
    assert batch.visual_index.tolist() == [2, 3, 4, 5, 4, 4, 5]
    assert batch.visual_places.tolist() == list(range(7))
    assert pad_rows(rows[1:], PAD, IMAGE, 2).visual_index.tolist() == []
