"""``dual-loop describe``: what it says of a mask, a box and a point, the way back, and refusals."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from dual_loop_command.describe import COMMAND


def describe(*arguments) -> int:
    return COMMAND.main_of('describe', list(map(str, arguments)))


@pytest.fixture
def scene(one_tiny, photo, tmp_path):
    Image.fromarray(photo.pixels).save('scene.png')
    Image.fromarray(photo.mask).save('mask.png')
    return photo


def answer(tmp_path) -> dict:
    return json.loads((tmp_path / 'work_dirs/try/scene_describe.json').read_text())


def test_a_mask_and_the_way_back(one_tiny, scene, tmp_path, capsys):
    assert describe('scene.png', '--mask', 'mask.png', '--cycle') == 0
    notes, shown = answer(tmp_path), capsys.readouterr().out
    # The interface of exported models, which shares no code above the network.
    said = one_tiny.network.predict_forward(
        image=Image.fromarray(scene.pixels), mask_prompts=[scene.mask], tokenizer=one_tiny.vocabulary.tokenizer,
        text='<image>Please generate a detailed description for the given image region.', max_new_tokens=256)
    assert notes['text'] == said['prediction'] and notes['text'] in shown
    region, found = (coco.decode(notes[part]['rle'] if part == 'region' else notes[part]['mask']['rle']).astype(bool)
                     for part in ('region', 'cycle'))
    assert (region == scene.mask).all() and notes['region']['rule'] == 'the mask itself'
    assert notes['cycle']['iou'] == pytest.approx((region & found).sum() / (region | found).sum())
    assert notes['cycle']['iou'] > 0.5
    assert f'IoU {notes["cycle"]["iou"]:.3f}' in shown
    assert 'cycle' not in (describe('scene.png', '--mask', 'mask.png') or answer(tmp_path))


def test_a_box_and_a_point_become_regions_by_the_stated_rule(scene, tmp_path):
    """The tiny model's decoder was never asked by either."""
    height, width = scene.mask.shape
    assert describe('scene.png', '--box', '10.5,20,30,40.25') == 0
    notes = answer(tmp_path)
    assert notes['region']['rule'] == 'the box itself' and notes['region']['box'] == [10, 20, 31, 41]
    assert notes['region']['area'] == 31 * 41 and notes['region']['prompt'] == 'box 10.5,20,30,40.25'
    assert describe('scene.png', '--box', f'0,0,{width},{height}') == 0
    assert answer(tmp_path)['region']['area'] == width * height
    assert describe('scene.png', '--point', f'{width // 2},{height // 2}') == 0
    notes, radius = answer(tmp_path), min(height, width) // 8
    assert notes['region']['rule'] == f'a disc of {radius} pixels round the point'
    assert notes['region']['area'] == pytest.approx(np.pi * radius**2, rel=0.05)
    assert notes['region']['box'] == [width // 2 - radius, height // 2 - radius, 2 * radius + 1, 2 * radius + 1]
    assert describe('scene.png', '--point', f'{width - 0.5},0') == 0
    assert 0 < answer(tmp_path)['region']['area'] < np.pi * radius**2 / 3


def test_refusals(scene, tmp_path, capsys):
    height, width = scene.mask.shape
    Image.fromarray(scene.mask[:, :-1]).save('narrow.png')
    Image.new('L', (width, height)).save('black.png')
    (tmp_path / 'note.txt').write_text('no picture')
    for arguments, reason in (
        (('--mask', 'narrow.png'), f'is a mask of {width - 1} x {height} and the photo has {width} x {height} pixels'),
        (('--mask', 'black.png'), 'black.png is black, so no region is marked'),
        (('--mask', 'note.txt'), 'note.txt is no picture that can be read'),
        (('--mask', 'none.png'), 'none.png is no picture that can be read (cannot be read: No such file'),
        (('--box', f'0,0,{width + 1},5'), f'ends outside of the photo, which is {width} x {height} pixels'),
        (('--box=-1,0,5,5', ), 'ends outside of the photo'),
        (('--box', f'{width},0,5,5'), 'ends outside of the photo'),
        (('--point', f'{width},0'), f'--point {width},0 lies outside of the photo'),
        (('--mask', 'mask.png', '--out', 'mask.png'), 'would overwrite mask.png'),
    ):
        assert describe('scene.png', *arguments) == 1
        said, = capsys.readouterr().err.splitlines()
        assert reason in said
    assert not list(tmp_path.glob('work_dirs/try/*'))
