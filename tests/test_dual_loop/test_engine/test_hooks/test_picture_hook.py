"""Pictures of loop 1: which images and masks stand in them, and what is kept of an earlier run."""

from types import SimpleNamespace

import pytest
import torch

from dual_loop.engine.hooks import picture_hook
from dual_loop.engine.hooks.picture_hook import PictureHook, read_pictures


@pytest.fixture
def runner(make_batch, tmp_path):
    data = make_batch(dict(key=1, pair=True), dict(key=2, caption='a cat'), dict(key=3))
    predicted = data['masks2'].clone()
    predicted[1] = False
    preview = dict(data=data, captions=['a dog', 'a cat', 'a mat'], predicted=predicted)
    return SimpleNamespace(work_dir=str(tmp_path), iter=0, train_loop=SimpleNamespace(preview=preview))


def test_a_picture_shows_both_images_of_its_row(runner, monkeypatch):
    """Image 1 with mask 1, image 2 with the predicted and the true mask 2."""
    shown, panel = [], picture_hook.panel
    monkeypatch.setattr(picture_hook, 'panel', lambda *args, **options: shown.append((args, options)) or panel(
        *args, **options))
    PictureHook(rows=2).after_train_iter(runner, 4)
    data = runner.train_loop.preview['data']
    assert data['image1'].tolist() == [0, 2, 3] and data['image2'].tolist() == [1, 2, 3]
    for row, (args, options) in enumerate(shown):
        image1, mask1, caption, image2, predicted, target = args
        assert torch.equal(image1, data['g_pixel_values'][(0, 2)[row]])
        assert torch.equal(image2, data['g_pixel_values'][(1, 2)[row]])
        assert torch.equal(mask1, data['masks1'][row]) and torch.equal(target, data['masks2'][row])
        assert caption == ('a dog', 'a cat')[row] and options['iou'] == (1.0, 0.0)[row]
    assert not torch.equal(data['masks1'][0], data['masks2'][0])
    [first, second] = read_pictures(runner.work_dir)
    assert (first.step, first.caption, first.sample_id, first.iou) == (5, 'a dog', 'sample1', 1.0)
    assert first.image.is_file() and (second.caption, second.iou) == ('a cat', 0.0)


def test_rows_of_ones_own_data_come_first(runner):
    runner.train_loop.preview['data']['sources'] = ['sav', 'mine', 'mine']
    PictureHook(rows=3, first=['mine']).after_train_iter(runner, 4)
    assert [panel.caption for panel in read_pictures(runner.work_dir)] == ['a cat', 'a mat', 'a dog']


def test_without_a_preview_nothing_is_drawn(runner):
    runner.train_loop.preview = None
    PictureHook().after_train_iter(runner, 4)
    assert read_pictures(runner.work_dir) == []


def test_steps_that_were_taken_back_are_forgotten(runner):
    hook = PictureHook(rows=1)
    for batch_idx in (0, 9, 19):
        hook.after_train_iter(runner, batch_idx)
    runner.iter = 10
    hook.before_train(runner)
    assert [panel.step for panel in read_pictures(runner.work_dir)] == [1, 10]
