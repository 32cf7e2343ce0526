from types import SimpleNamespace

import pytest
import torch

from dual_loop.datasets.contract import violations

LOW, HIGH = -0.485 / 0.229, (1 - 0.406) / 0.225  # black in red and white in blue, ImageNet-normalised


def data_set(**more):
    return SimpleNamespace(**dict(image_size=56, grounding_size=64, region_grid=8, num_objects=1, source='here',
                                  describes=False) | more)


def frame(suffix='', objects=()):
    pixels = torch.zeros(3, 56, 56)
    pixels[0, 0, 0], pixels[2, 0, 0] = LOW, HIGH
    return {f'pixel_values{suffix}': pixels, f'g_pixel_values{suffix}': torch.zeros(3, 64, 64, dtype=torch.uint8),
            f'prompt_masks{suffix}': torch.ones(*objects, 8, 8, dtype=torch.bool),
            f'masks{suffix}': torch.ones(*objects, 64, 64, dtype=torch.bool), f'image_key{suffix}': 'key'}


def sample(**more):
    return dict(caption=None, source='here', describes=False, sample_id='a') | more


def test_right_samples():
    assert not list(violations(sample(**frame()), data_set()))
    assert not list(violations(sample(**frame('1'), **frame('2'), caption='a cat'), data_set()))
    several = sample(**frame(objects=(2,)), caption=['a cat', None])
    assert not list(violations(several, data_set(num_objects=3)))
    assert not list(violations(sample(**frame(), caption='a cat', describes=True), data_set(describes=True)))


def cell(values, *position):
    return lambda: torch.zeros(3, 56, 56).index_put(tuple(map(torch.tensor, position)), torch.tensor(values))


@pytest.mark.parametrize('change, said', [
    (dict(pixel_values=cell(LOW - 0.01, 0, 0, 0)()), 'pixel_values is not ImageNet-normalised'),
    (dict(pixel_values=cell(HIGH + 0.01, 2, 0, 0)()), 'pixel_values is not ImageNet-normalised'),
    (dict(pixel_values=cell(-2.1, 2, 0, 0)()), 'pixel_values is not ImageNet-normalised'),  # right for red only
    (dict(pixel_values=cell(float('nan'), 0, 0, 0)()), 'pixel_values is not ImageNet-normalised'),
    (dict(pixel_values=torch.zeros(3, 56, 56).double()), 'pixel_values is (3, 56, 56) torch.float64'),
    (dict(pixel_values=torch.zeros(3, 64, 64)), 'not (3, 56, 56) torch.float32'),
    (dict(g_pixel_values=torch.zeros(3, 64, 64)), 'not (3, 64, 64) torch.uint8'),
    (dict(g_pixel_values=None), 'g_pixel_values is missing'),
    (dict(prompt_masks=torch.ones(4, 4, dtype=torch.bool)), 'not (8, 8) torch.bool'),
    (dict(prompt_masks=torch.zeros(8, 8, dtype=torch.bool)), 'prompt_masks is empty'),
    (dict(masks=torch.zeros(64, 64, dtype=torch.bool)), 'masks is empty'),
    (dict(masks=torch.ones(1, 64, 64, dtype=torch.bool)), 'masks is (1, 64, 64)'),
    (dict(caption=' '), "caption is ' '"),
    (dict(caption=['a cat']), "caption is ['a cat']"),
    (dict(source='there'), "source is 'there', not 'here'"),
    (dict(describes=True), 'describes is True, not False'),
    (dict(sample_id=''), "sample_id is ''"),
    (dict(image_key=None), 'image_key is None'),
])
def test_one_thing_wrong(change, said):
    violation, = violations(sample(**frame()) | change, data_set())
    assert said in violation


def test_a_pair_lacks_a_frame_and_a_description_its_text():
    found = list(violations(sample(**frame('1')), data_set()))
    assert [each.split()[0] for each in found] == ['pixel_values2', 'g_pixel_values2', 'prompt_masks2', 'masks2',
                                                   'image_key2']
    found, = violations(sample(**frame(), describes=True), data_set(describes=True))
    assert found == 'caption is None, not a description'


@pytest.mark.parametrize('objects, caption, said', [
    ((3,), [None] * 3, ['prompt_masks is (3, 8, 8)', 'masks is (3, 64, 64)']),
    ((0,), [], ['prompt_masks is (0, 8, 8)', 'masks is (0, 64, 64)']),
    ((), [None] * 64, ['prompt_masks is (8, 8)', 'masks is (64, 64)']),
    ((2,), None, ['not a list with one for each object']),
    ((2,), ['a cat'], ['not a list with one for each object']),
])
def test_several_objects(objects, caption, said):
    found = list(violations(sample(**frame(objects=objects), caption=caption), data_set(num_objects=2)))
    assert len(found) == len(said) and all(a in b for a, b in zip(said, found)), found


def test_one_empty_mask_of_two():
    pair = sample(**frame(objects=(2,)), caption=[None, None])
    pair['masks'][1] = False
    assert list(violations(pair, data_set(num_objects=2))) == ['masks is empty']
