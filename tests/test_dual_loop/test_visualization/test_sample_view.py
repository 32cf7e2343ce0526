"""Whether the pictures show the tensors that the model gets."""

import numpy as np
import pytest
import torch

from dual_loop.visualization.palette import PAPER, TARGET_COLOUR
from dual_loop.visualization.sample_view import HEADER, MARGIN, draw_sample, sample_views, shown_text, vision_image
from dual_loop.visualization.token_view import Chip, SequenceBuilder
from llava_sam2.portable.image_processing import normalise


@pytest.fixture(scope='module')
def builder(network_sizes):
    return SequenceBuilder(dict(base=dict(tokenizer='assets/tiny', network=network_sizes, random_weights=True)))


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def test_vision_image_undoes_the_normalisation():
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vision_image(normalise(image)), image)


def test_vision_image_stays_within_0_and_255():
    assert vision_image(torch.full((3, 1, 1), 9.0)).unique().tolist() == [255]
    assert vision_image(torch.full((3, 1, 1), -9.0)).unique().tolist() == [0]


def test_first_panel_is_the_vision_input_the_others_are_the_grounding_input(make_sample, builder):
    sample = make_sample(key=1, pair=True)
    sample['pixel_values1'] = normalise(torch.full((3, 112, 112), 40, dtype=torch.uint8))
    sample['g_pixel_values1'] = torch.full((3, 128, 128), 90, dtype=torch.uint8)
    sample['g_pixel_values2'] = torch.full((3, 128, 128), 160, dtype=torch.uint8)
    cells = sample['prompt_masks1'].zero_()
    cells[1, 2] = True
    for frame, (top, left) in ((1, (0, 0)), (2, (64, 64))):
        sample[f'masks{frame}'].zero_()[top:top + 64, left:left + 64] = True
    [view] = sample_views('loop 1', sample, builder, height=128)
    labels = [label for label, _ in view.panels]
    assert labels == ['image 1, 112 px', 'region 1 of 16', 'image 1, 128 px, mask', 'image 2, 128 px',
                      'image 2, mask to find']
    vision, region, first, plain, second = (pixels(picture) for _, picture in view.panels)
    assert (vision == 40).all() and (plain == 160).all(), 'as they are'
    # What is outlined keeps its colours; the line runs on the pixels round it.
    for picture, grey, (top, left, bottom, right) in ((region, 40, (32, 64, 64, 96)), (first, 90, (0, 0, 64, 64)),
                                                      (second, 160, (64, 64, 128, 128))):
        assert (picture[:, top:bottom, left:right] == grey).all()
        changed = (picture != grey).any(0).nonzero()
        low, high = changed.min(0).values.tolist(), changed.max(0).values.tolist()
        assert low == [max(0, top - 3), max(0, left - 3)] and high == [min(127, bottom + 2), min(127, right + 2)]


def test_a_single_frame_is_shown_once(make_sample, builder):
    [loop1] = sample_views('loop 1', make_sample(key=2, caption='a star'), builder, height=64)
    [held_out] = sample_views('held out', make_sample(key=2, caption='a star'), builder, height=64)
    assert [label.split(',')[0] for label, _ in loop1.panels] [::2] == ['image 1 = image 2'] * 2
    assert [label.split(',')[0] for label, _ in held_out.panels] [::2] == ['image'] * 2


def test_each_object_of_a_sample_has_its_own_view(make_sample, builder):
    sample = make_sample(key=3, caption='a star')
    sample |= {key: sample[key][None].repeat(3, 1, 1) for key in ('masks', 'prompt_masks')}
    sample['caption'] = ['a star', 'a ring', 'a heart']
    views = list(sample_views('training', sample, builder, height=64))
    assert [(view.sample_id, view.caption) for view in views] == [
        ('sample3#0', 'a star'), ('sample3#1', 'a ring'), ('sample3#2', 'a heart')]


def rows_with_underline(picture):
    """Heights at which lines of supervised tokens are, below the panels."""
    colour = torch.tensor(TARGET_COLOUR, dtype=torch.uint8).view(3, 1, 1)
    below = pixels(picture)[:, MARGIN + HEADER + 64:]
    return (below == colour).all(0).sum(1)


def test_the_picture_grows_with_the_text_and_underlines_what_is_supervised(make_sample, builder):
    def draw(caption, loader='loop 2', note=''):
        [view] = sample_views(loader, make_sample(key=4, caption=caption, describes=True), builder, height=64)
        return draw_sample(view, note)

    short, long = draw('a star'), draw('a star and a ring ' * 40)
    assert long.height > short.height + 300 and long.width == short.width
    assert rows_with_underline(long).sum() > 5 * rows_with_underline(short).sum() > 0
    # Of a held-out sample only the legend has an underline.
    legend, taught = (int((rows_with_underline(draw('a star', loader)) > 0).sum()) for loader in ('held out', 'loop 2'))
    assert 0 < legend < taught
    assert draw('a star', note='in place of x').height > short.height
    edges = pixels(long)
    assert (edges[:, 100:, :MARGIN] == PAPER[0]).all() and (edges[:, 100:, -MARGIN + 4:] == PAPER[0]).all()


def test_spaces_and_line_breaks_of_tokens_are_visible():
    assert shown_text(Chip(' a\n', (1,), False, 'text')) == '·a\\n'
    assert shown_text(Chip("student's caption", (1,), False, 'slot')) == "student's caption"
    assert shown_text(Chip('<IMG_CONTEXT> x 4', (1,) * 4, False, 'image')) == '<IMG_CONTEXT> x 4'
