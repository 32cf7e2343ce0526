"""Pictures of loop 1: which images, masks and texts stand in them, and what is kept of an earlier run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dual_loop.engine.hooks.picture_hook import HEIGHT, PictureHook, read_pictures
from dual_loop.visualization.palette import PREDICTED_COLOUR, PROMPT_COLOUR, TARGET_COLOUR


@pytest.fixture
def runner(make_batch, tmp_path, vocabulary):
    data = make_batch(dict(key=1, pair=True), dict(key=2, caption='a cat'), dict(key=3))
    predicted = data['masks2'].clone()
    predicted[1] = False
    teacher = vocabulary.encode('a small dog')
    other = vocabulary.encode(' ring')[0]
    written = {0: dict(teacher=teacher, corrupted=[*teacher[:-1], other], student=[teacher[0], other, *teacher[2:]])}
    preview = dict(data=data, captions=['a dog', 'a cat', 'a mat'], predicted=predicted, written=written)
    model = SimpleNamespace(base=SimpleNamespace(vocabulary=vocabulary))
    return SimpleNamespace(work_dir=str(tmp_path), iter=0, train_loop=SimpleNamespace(preview=preview), model=model)


def enlarged(tensor: torch.Tensor) -> np.ndarray:
    """A mask at the height of the pictures, by repetition."""
    factor = HEIGHT // tensor.shape[-1]
    return tensor.repeat_interleave(factor, 0).repeat_interleave(factor, 1).numpy()


def test_the_pictures_of_a_row_show_both_images_as_they_are_and_each_object_in_its_outline(runner):
    PictureHook(rows=2).after_train_iter(runner, 4)
    data, predicted = runner.train_loop.preview['data'], runner.train_loop.preview['predicted']
    assert data['image1'].tolist() == [0, 2, 3] and data['image2'].tolist() == [1, 2, 3]
    first, second = read_pictures(runner.work_dir)
    assert [label for label, _ in first.pictures] == ['Image 1', 'Region that is described', 'Image 2', 'Found',
                                                      'To find']
    assert [label for label, _ in second.pictures] == ['Image', 'Region that is described', 'Found', 'To find']
    for row, panel in enumerate((first, second)):
        shown = {label: np.asarray(Image.open(file)) for label, file in panel.pictures}
        for label, number, mask, colour in (('Region that is described', data['image1'][row], data['masks1'][row],
                                             PROMPT_COLOUR),
                                            ('Found', data['image2'][row], predicted[row], PREDICTED_COLOUR),
                                            ('To find', data['image2'][row], data['masks2'][row], TARGET_COLOUR)):
            image = Image.fromarray(data['g_pixel_values'][number].permute(1, 2, 0).numpy())
            plain, inside = np.asarray(image.resize((HEIGHT, HEIGHT), Image.Resampling.LANCZOS)), enlarged(mask)
            assert (shown[label][inside] == plain[inside]).all(), 'the object keeps its colours'
            assert (shown[label] == colour).all(2).any() == inside.any() and not inside.all()
            assert any((each == plain).all() for name, each in shown.items() if name.startswith('Image'))
    assert (first.step, first.caption, first.sample_id, first.iou) == (5, 'a dog', 'sample1', 1.0)
    assert (second.caption, second.iou) == ('a cat', 0.0)


def test_texts_of_the_teacher_the_corruption_and_the_student_stand_with_what_changed(runner, vocabulary):
    PictureHook(rows=2).after_train_iter(runner, 4)
    described, human = read_pictures(runner.work_dir)
    written = runner.train_loop.preview['written'][0]
    assert [label.split(',')[0] for label, _ in described.texts] == ["The teacher's", 'Corrupted', "The student's"]
    for (_, text), ids in zip(described.texts, written.values()):
        assert ''.join(piece for piece, _ in text) == vocabulary.decode(ids)
    assert [[changed for _, changed in text] for _, text in described.texts][0] == [False]
    assert [piece for piece, changed in described.texts[1][1] if changed] == [' ring']
    assert human.texts == [['Human sentence', [['a cat', False]]]]


def test_rows_of_ones_own_data_come_first(runner):
    runner.train_loop.preview['data']['sources'] = ['sav', 'mine', 'mine']
    PictureHook(rows=3, first=['mine']).after_train_iter(runner, 4)
    assert [panel.caption for panel in read_pictures(runner.work_dir)] == ['a cat', 'a mat', 'a dog']


def test_without_a_preview_nothing_is_drawn(runner):
    runner.train_loop.preview = None
    PictureHook().after_train_iter(runner, 4)
    assert read_pictures(runner.work_dir) == []


def test_a_loop_of_ones_own_need_not_give_its_tokens(runner):
    del runner.train_loop.preview['written']
    PictureHook(rows=1).after_train_iter(runner, 4)
    assert read_pictures(runner.work_dir)[0].caption == 'a dog'


def test_steps_that_were_taken_back_are_forgotten(runner):
    hook = PictureHook(rows=1)
    for batch_idx in (0, 9, 19):
        hook.after_train_iter(runner, batch_idx)
    runner.iter = 10
    hook.before_train(runner)
    assert [panel.step for panel in read_pictures(runner.work_dir)] == [1, 10]


def test_a_line_that_was_cut_off_pictures_that_are_gone_and_those_of_version_0_1_0(runner, tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    Image.new('RGB', (4, 4)).save(folder / 'old.png')
    old = dict(step=1, image='old.png', caption='x', sample_id='s', source='sav', iou=0.5)
    (folder / 'index.jsonl').write_text(json.dumps(old) + '\n' + json.dumps(old | dict(image='gone.png')) + '\n{"st')
    runner.iter = 3
    PictureHook().before_train(runner)
    assert (folder / 'index.jsonl').read_text().count('\n') == 2, 'the next line stands alone'
    assert [panel.pictures for panel in read_pictures(tmp_path)] == [[('', folder / 'old.png')], []]
