"""``dual-loop segment`` on a scene of the demo world: the files that it writes, every kind of picture, refusals."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from dual_loop.visualization.palette import PREDICTED_COLOUR
from dual_loop_command.segment import COMMAND

EXIF_ORIENTATION = 0x0112


def segment(*arguments) -> int:
    return COMMAND.main_of('segment', list(map(str, arguments)))


def decoded(mask: dict) -> np.ndarray:
    return coco.decode(mask['rle']).astype(bool)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_the_object_is_found_and_drawn(one_tiny, photo, tmp_path, capsys):
    Image.fromarray(photo.pixels).save('scene.png')
    assert segment('scene.png', photo.text) == 0
    shown = capsys.readouterr().out
    notes = json.loads((tmp_path / 'work_dirs/try/scene_segment.json').read_text())
    height, width = photo.mask.shape
    assert (notes['width'], notes['height'], notes['photo'], notes['text']) == (width, height, 'scene.png', photo.text)
    mask = decoded(notes['mask'])
    assert iou(mask, photo.mask) > 0.5
    # The interface of exported models, which shares no code above the network.
    said = one_tiny.network.predict_forward(
        image=Image.fromarray(photo.pixels), text=f'<image>\n Please segment {photo.text} in this image.',
        tokenizer=one_tiny.vocabulary.tokenizer, max_new_tokens=256)
    assert notes['answer'] == said['prediction'] and notes['has_seg'] and notes['ended']
    assert (mask == said['prediction_masks'][0][0]).all()
    rows, columns = mask.nonzero()
    assert notes['mask']['area'] == mask.sum()
    assert notes['mask']['box'] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert photo.text in shown and f'{mask.sum()} pixels' in shown and 'scene_segment.png' in shown
    with Image.open('work_dirs/try/scene_segment.png') as sheet:
        drawn = np.asarray(sheet)
    factor = max(1, 400 // max(height, width))
    large = photo.pixels.repeat(factor, 0).repeat(factor, 1)
    assert len(drawn) > len(large), 'what the colour means stands below'
    drawn = drawn[:len(large)]
    assert (drawn[:, :width * factor] == large).all(), 'one picture is untouched'
    outlined, inside = drawn[:, -width * factor:], mask.repeat(factor, 0).repeat(factor, 1)
    assert (outlined[inside] == large[inside]).all(), 'the object keeps its colours'
    changed = (outlined != large).any(2)
    assert changed.any() and (outlined[changed] == PREDICTED_COLOUR).all(1).any()


def test_pictures_of_every_kind(one_tiny, photo, tmp_path):
    """Lossless kinds give the same answer; EXIF's turn is undone; sizes are kept."""
    picture = Image.fromarray(photo.pixels)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture.save('plain.png')
    picture.save('x.bmp')
    picture.save('x.tiff')
    picture.save('x.webp', lossless=True)
    picture.transpose(Image.Transpose.ROTATE_90).save('turned.png', exif=exif)
    picture.convert('RGBA').save('alpha.png')
    masks = {}
    for name in ('plain.png', 'x.bmp', 'x.tiff', 'x.webp', 'turned.png', 'alpha.png'):
        assert segment(name, photo.text, '--out', f'{name}.out.png') == 0
        notes = json.loads((tmp_path / f'{name}.out.json').read_text())
        assert notes['mask']['rle']['size'] == list(photo.mask.shape)
        masks[name] = decoded(notes['mask'])
    assert all((mask == masks['plain.png']).all() for mask in masks.values())
    Image.new('L', (1, 1)).save('dot.png')
    Image.new('CMYK', (3000, 17)).save('strip.jpg')
    for name, size in (('dot.png', [1, 1]), ('strip.jpg', [17, 3000])):
        assert segment(name, 'a ring', '--out', 'other.png') == 0
        assert json.loads((tmp_path / 'other.json').read_text())['mask']['rle']['size'] == size


def refused(capsys, *arguments) -> str:
    assert segment(*arguments) == 1
    said, = capsys.readouterr().err.splitlines()
    assert said.startswith('segment: ')
    return said


def test_refusals(one_tiny, photo, checkout, tmp_path, capsys):
    Image.fromarray(photo.pixels).save('scene.png')
    (tmp_path / 'note.txt').write_text('no picture')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'scene.png').read_bytes()[:2000])
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'bert').mkdir()
    (tmp_path / 'bert/config.json').write_text('{"model_type": "bert"}')
    before = (tmp_path / 'scene.png').read_bytes()
    for name, reason in (('note.txt', 'cannot be decoded'), ('none.png', 'No such file'), ('folder', 'Is a directory'),
                         ('cut.png', 'cut.png')):
        said = refused(capsys, name, 'a ring')
        assert f'{name} is no picture that can be read' in said and reason in said and ' object at ' not in said
    for model, reason in (('folder', 'folder is no folder of a model'), ('note.txt', '--model note.txt is a file'),
                          ('bert', 'bert/config.json'),
                          ('pretrained/Sa2VA-4B', '`hf download ByteDance/Sa2VA-4B --local-dir pretrained/Sa2VA-4B`')):
        assert reason in refused(capsys, 'scene.png', 'a ring', '--model', model)
    for out, reason in (('x.jpg', 'ends in .png'), ('folder', 'ends in .png'),
                        ('scene.png', 'would overwrite scene.png'),
                        ('./folder/../scene.png', 'would overwrite scene.png'),
                        ('note.txt/x.png', 'cannot be written'), ('/proc/none/x.png', 'cannot be written')):
        assert reason in refused(capsys, 'scene.png', 'a ring', '--out', out)
    assert (tmp_path / 'scene.png').read_bytes() == before
    assert not list(tmp_path.glob('work_dirs/try/*'))


def test_a_full_disk(one_tiny, photo, capsys, small_files_only, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save('noise.jpg', quality=30)
    assert 'the answer cannot be written to out.png: File too large. Choose another --out' in refused(
        capsys, 'noise.jpg', 'a ring', '--out', 'out.png')
    assert sorted(each.name for each in tmp_path.iterdir()) == ['noise.jpg']
