"""What the page asks is what the commands ask; what cannot be asked is one sentence."""

import json
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dual_loop.demo_page.canvas import Canvas
from dual_loop.demo_page.questions import MAX_PIXELS, Questions
from dual_loop.demo_page.scenes import EXAMPLES
from dual_loop.evaluation.photograph import Photograph
from dual_loop.refusals import refusal
from dual_loop_command import describe, segment

EXIF_ORIENTATION = 0x0112


@pytest.fixture
def scene(posed, tmp_path, monkeypatch):
    """The first example as files for the commands: its picture and the mask of its object."""
    monkeypatch.chdir(tmp_path)
    canvas, _ = posed[0]
    Image.fromarray(canvas.photograph.image.permute(1, 2, 0).numpy()).save('scene.png')
    Image.fromarray(canvas.region.mask.numpy()).save('mask.png')
    return canvas


def written(tmp_path, name: str) -> dict:
    return json.loads((tmp_path / f'work_dirs/try/scene_{name}.json').read_text())


def test_words_find_what_the_command_finds(questions, scene, tmp_path, capsys):
    phrase = EXAMPLES[0][2]
    assert segment.COMMAND.main_of('segment', ['scene.png', phrase]) == 0
    notes, reply = written(tmp_path, 'segment'), questions.find(scene, f'  {phrase}\n')
    assert reply.headline.startswith(f'Found: {notes["mask"]["area"]} pixels, ')
    assert notes['answer'] in reply.details[0] and len(reply.details) == 1
    (picture, below), = reply.pictures
    with Image.open('work_dirs/try/scene_segment.png') as sheet:
        assert (np.asarray(picture) == np.asarray(sheet)[:picture.height, -picture.width:]).all()
    assert below == phrase


def test_a_region_is_described_as_by_the_command_and_found_again(questions, posed, scene, tmp_path, capsys):
    assert describe.COMMAND.main_of('describe', ['scene.png', '--mask', 'mask.png', '--cycle']) == 0
    notes = written(tmp_path, 'describe')
    assert questions.describe(scene).headline == notes['text']
    assert f'{notes["region"]["area"]} pixels' in questions.describe(scene).details[0]
    second = posed[0][1]
    reply = questions.go_round(scene, second)
    assert reply.headline == notes['text']
    (_, here), (_, there) = reply.pictures
    assert here == f'This picture: found again, IoU {notes["cycle"]["iou"]:.2f}'
    found, truth = second.photograph.segment(notes['text']).outlines[0][0], second.objects[EXAMPLES[0][1]]
    expected = (found & truth).sum() / (found | truth).sum()
    assert there == f'Second picture: found again, IoU {expected:.2f}' and expected > 0.5


def test_the_iou_in_the_second_picture_is_with_what_is_known_there(questions, posed):
    first, second = posed[0]
    own = Canvas(second.photograph)  # as if it were a picture of the user's
    assert questions.go_round(first, own).pictures[1][1].endswith('found; mark the object there too for an IoU')
    marked = questions.mark(second, 5, 5)
    assert questions.go_round(first, marked).pictures[1][1].endswith('IoU 0.00'), "the user's own mark decides"
    scrap = questions.mark(first.cleared('box'), 52, 112)
    scrap = questions.mark(scrap, 60, 120)
    assert 'holds no object' in questions.go_round(scrap, second).pictures[1][1]
    alone = questions.go_round(first, None)
    assert len(alone.pictures) == 1 and 'no second picture' in alone.details[-1]


@pytest.mark.parametrize(('phrase', 'unknown'), [
    ('der rote Ring', '“der”, “rote”, “Ring”'), ('红色的圆环', '“红色的圆环”'),
    ('THE RED RING', '“THE”, “RED”, “RING”'),
    ('<script>alert(1)</script>', '“script”, “alert”, “1”'), ('🙂', None), ('the large striped star', None),
])
def test_words_that_the_tiny_model_has_never_read(questions, posed, phrase, unknown):
    details = questions.find(posed[0][0], phrase).details
    warned = [each for each in details if 'never read' in each]
    assert len(warned) == bool(unknown) and all(f'never read {unknown}: it knows lower-case' in each for each in warned)
    assert len(Questions(questions.loaded).find(posed[0][0], phrase).details) == 1, 'of another model nothing is known'


def said(act) -> str:
    """The sentence for the user; a fault has none."""
    with pytest.raises(ValueError) as caught:
        act()
    sentence = refusal(caught.value)
    assert sentence and '\n' not in sentence
    return sentence


def test_what_cannot_be_asked(questions, posed):
    canvas, second = posed[0]
    for phrase in ('', ' \n', None):
        assert 'Write what to find' in said(lambda phrase=phrase: questions.find(canvas, phrase))
    assert 'in at most 300' in said(lambda: questions.find(canvas, 'ring ' * 100))
    for ask in (questions.describe, lambda first: questions.go_round(first, second)):
        assert 'No region is marked yet' in said(lambda ask=ask: ask(canvas.cleared()))
        assert 'no picture yet' in said(lambda ask=ask: ask(None))
        for kind, more in (('box', '1 more time'), ('outline', '2 more times')):
            begun = questions.mark(canvas.cleared(kind), 5, 5)
            assert said(lambda ask=ask, begun=begun: ask(begun)) == f'The {kind} is not complete: click {more}.'
    assert 'no picture yet' in said(lambda: questions.find(None, 'ring'))


def test_pictures_of_every_kind(questions, posed, tmp_path):
    pixels = posed[0][0].photograph.image
    picture, exif = Image.fromarray(pixels.permute(1, 2, 0).numpy()), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'turned.png', exif=exif)
    picture.save(tmp_path / 'moves.webp', save_all=True, append_images=[picture.rotate(90)], lossless=True)
    picture.convert('CMYK').save(tmp_path / 'print.jpg')
    Image.new('1', (1, 1)).save(tmp_path / 'dot.gif')
    for name in ('turned.png', 'moves.webp'):
        assert torch.equal(questions.open(tmp_path / name).photograph.image, pixels)
    assert questions.open(tmp_path / 'print.jpg').photograph.picture.size == tuple(pixels.shape[1:])
    dot = questions.mark(questions.open(tmp_path / 'dot.gif'), 3, 3)
    assert questions.describe(dot).details[0].endswith(' 1 pixels, 100.0% of the picture.')
    assert questions.find(dot, 'a ring').headline


def test_files_that_are_refused(questions, tmp_path):
    (tmp_path / 'note.txt').write_text('no picture')
    (tmp_path / 'none.png').write_bytes(b'')
    for name in ('note.txt', 'none.png'):
        sentence = said(lambda name=name: questions.open(tmp_path / name))
        assert sentence.startswith(f'{name} is no picture that can be read') and str(tmp_path) not in sentence
    Image.new('1', (10_000, MAX_PIXELS // 10_000)).save(tmp_path / 'large.png')
    assert questions.open(tmp_path / 'large.png').photograph.picture.size == (MAX_PIXELS // 10_000, 10_000)
    for height in (MAX_PIXELS // 10_000 + 1, 20_000):
        Image.new('1', (10_000, height)).save(tmp_path / 'huge.png')
        assert 'huge.png has more than 50 million pixels' in said(lambda: questions.open(tmp_path / 'huge.png'))


def test_several_users_at_once(questions, posed, monkeypatch):
    """The model is asked by one at a time, and each answer is what the same question gets alone."""
    inside, most = [], []

    def counted(ask):
        def counting(*arguments, **options):
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.01)  # for the others to come in
            answer = ask(*arguments, **options)
            inside.pop()
            return answer

        return counting

    for name in ('segment', 'describe'):
        monkeypatch.setattr(Photograph, name, counted(getattr(Photograph, name)))
    asked = [(canvas, phrase) for (canvas, _), (_, _, phrase) in zip(posed, EXAMPLES)]
    alone = [(questions.find(canvas, phrase).headline, questions.describe(canvas).headline) for canvas, phrase in asked]
    together: list = [None] * len(asked)

    def ask(number):
        canvas, phrase = asked[number]
        together[number] = questions.find(canvas, phrase).headline, questions.describe(canvas).headline

    threads = [threading.Thread(target=ask, args=[number]) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone and max(most) == 1
