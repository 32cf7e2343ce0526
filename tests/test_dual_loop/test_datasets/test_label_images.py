"""Which pixels of a mask picture belong to which object, for every way that tools store them."""

import numpy as np
import pytest
from PIL import Image

from dual_loop.datasets.label_images import WHOLE, read_object, read_objects
from dual_loop.datasets.quarantine import BadSample

A, B = (slice(2, 12), slice(3, 13)), (slice(15, 25), slice(20, 36))
HEIGHT, WIDTH = 30, 40


def numbers(first=1, second=2, kind=np.uint8):
    values = np.zeros((HEIGHT, WIDTH), kind)
    values[A], values[B] = first, second
    return values


def palette_picture(first=1, second=2, void=False):
    """As Pascal VOC stores objects: index 0 is black, 1 dark red, 2 dark green, 255 the border."""
    values = numbers(first, second)
    if void:
        values[1:13, 2] = 255
    picture = Image.fromarray(values)
    colours = np.zeros((256, 3), np.uint8)
    colours[1], colours[2], colours[255] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
    picture.putpalette(colours.tobytes())
    return picture


def colours(alpha=None):
    values = np.zeros((HEIGHT, WIDTH, 3 if alpha is None else 4), np.uint8)
    values[A][..., :3], values[B][..., :3] = (250, 0, 0), (0, 9, 250)
    if alpha is not None:
        values[..., 3] = np.where(values[..., :3].any(-1), 255, alpha)
    return Image.fromarray(values)


SEVERAL = {
    'grey': Image.fromarray(numbers()), '16 bits': Image.fromarray(numbers(300, 7, np.uint16)),
    '32 bits': Image.fromarray(numbers(70_000, 1, np.int32)), 'float': Image.fromarray(numbers(1, 2, np.float32)),
    'palette': palette_picture(), 'palette with a border': palette_picture(void=True), 'RGB': colours(),
    'RGBA on nothing': colours(0), 'RGBA on black': colours(255), 'bright greys': Image.fromarray(numbers(100, 255)),
}


@pytest.fixture
def stored(tmp_path):
    def store(picture, name='mask'):
        file = tmp_path / (f'{name}.tif' if picture.mode in 'FI' else f'{name}.png')
        picture.save(file)
        return file

    return store


@pytest.mark.parametrize('kind', SEVERAL)
def test_two_objects_in_one_picture(stored, kind):
    file = stored(SEVERAL[kind])
    found = read_objects(file)
    assert (found.height, found.width, found.problems) == (HEIGHT, WIDTH, [])
    expected = {(10, 10, 100): A, (16, 10, 160): B}
    assert {(each.width, each.height, each.area) for each in found.objects} == expected.keys()
    for each in found.objects:
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[expected[each.width, each.height, each.area]] = True
        assert np.array_equal(read_object(file, each.level), inside)
    [whole] = read_objects(file, 'one').objects
    assert (whole.level, whole.area, whole.width, whole.height) == (WHOLE, 260, 33, 23)


@pytest.mark.parametrize('value', [1, 255])
@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'I;16'])
def test_one_object(stored, mode, value):
    picture = Image.fromarray(numbers(value, value))
    picture = Image.fromarray(numbers(257 * value, 257 * value, np.uint16)) if mode == 'I;16' else \
        picture.point(lambda level: 255 * (level > 0)).convert(mode) if mode == '1' else picture.convert(mode)
    file = stored(picture)
    found = read_objects(file)
    assert [each.area for each in found.objects] == [260] and not found.problems
    assert read_object(file, found.objects[0].level).sum() == 260
    assert [each.area for each in read_objects(file, 'indexed').objects] == [260]


def test_a_soft_edge_is_no_object(stored):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for ring, level in enumerate((60, 130, 200, 255)):
        values[4 + ring:26 - ring, 4 + ring:36 - ring] = level
    for picture in (Image.fromarray(values), Image.fromarray(values).convert('RGB'),
                    Image.fromarray(values).convert('P'), Image.fromarray(values.astype(np.uint16) * 257)):
        [whole] = read_objects(stored(picture)).objects
        assert (whole.level, whole.area) == (WHOLE, 22 * 32)


def test_what_may_be_an_edge_beside_objects_is_a_problem(stored):
    values = numbers()
    values[26, 5:9] = 40
    found = read_objects(stored(Image.fromarray(values)))
    assert len(found.objects) == 2
    [problem] = found.problems
    assert 'level 40' in problem and "objects='one' or 'indexed'" in problem
    assert [each.area for each in read_objects(stored(Image.fromarray(values)), 'indexed').objects] == [100, 160, 4]


def test_cut_outs_photographs_and_empty_masks(stored):
    noise = np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    noise[..., 3] = 0
    noise[A][..., 3] = 255
    [whole] = read_objects(stored(Image.fromarray(noise))).objects
    assert (whole.level, whole.area) == (WHOLE, 100)
    with pytest.raises(BadSample, match='a picture rather than a mask') as error:
        read_objects(stored(Image.fromarray(noise[..., :3])))
    assert error.value.path
    with pytest.raises(BadSample, match='the mask is empty: draw the object in it, or remove'):
        read_objects(stored(Image.fromarray(numbers(0, 0))))
    damaged = stored(Image.fromarray(numbers()), 'damaged')
    for content in (b'no picture', damaged.read_bytes()[:-20], b''):
        damaged.write_bytes(content)
        with pytest.raises(BadSample, match='; save it again as PNG, or remove the file$') as error:
            read_objects(damaged)
        assert error.value.path == damaged and ' at 0x' not in error.value.reason
    many = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    many = np.repeat(np.repeat(many, 3, 0), 3, 1)
    with pytest.raises(BadSample, match="1199 levels or colours.*objects='one'"):
        read_objects(stored(Image.fromarray(many)))


def test_index_zero_of_a_palette_may_be_a_colour(stored):
    picture = Image.fromarray(1 - (numbers(1, 1) > 0).astype(np.uint8))
    picture.putpalette(bytes([255, 255, 255, 0, 0, 0]))
    [each] = read_objects(stored(picture)).objects
    assert each.area == 260 and read_object(stored(picture), each.level).sum() == 260


def test_the_border_of_pascal_voc_is_outside(stored):
    file = stored(palette_picture(first=2, void=True))
    [each] = read_objects(file).objects
    assert (each.level, each.area) == (2, 260) and read_object(file, each.level).sum() == 260
