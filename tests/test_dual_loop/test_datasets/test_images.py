import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dual_loop.datasets.images import decode_image, read_image, read_mask_image
from dual_loop.datasets.quarantine import BadSample


def encode(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP', 'WEBP'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_decodes_as_pil_does(tiny, kind, mode):
    data = encode(Image.fromarray(tiny.picture).convert(mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    image = decode_image(data, 'x')
    assert image.dtype == torch.uint8 and image.shape == (3, 48, 64)
    np.testing.assert_array_equal(image.permute(1, 2, 0), expected)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
def test_turns_a_picture_the_way_its_exif_tag_says(tiny, kind):
    picture = Image.fromarray(tiny.picture)
    exif = picture.getexif()
    exif[0x0112] = 6
    data = encode(picture, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
    image = decode_image(data, 'x')
    assert image.shape == (3, 64, 48)
    np.testing.assert_array_equal(image.permute(1, 2, 0), expected)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    image = decode_image(encode(Image.fromarray(values), 'PNG'), 'x')
    np.testing.assert_array_equal(image[0], values >> 8)


def test_cmyk_jpeg(tiny):
    data = encode(Image.fromarray(tiny.picture).convert('CMYK'), 'JPEG', quality=95)
    image = decode_image(data, 'x')
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - tiny.picture).mean() < 5


def test_broken_files_are_bad_samples(tiny, tmp_path):
    file = tmp_path / 'broken.jpg'
    cut = tiny.jpeg(tiny.picture)[:-200]
    for data, reason in ((b'', 'zero bytes'), (cut, 'truncated'), (b'no picture', 'decoded')):
        file.write_bytes(data)
        with pytest.raises(BadSample, match=reason) as caught:
            read_image(file)
        assert caught.value.path == file
    with pytest.raises(BadSample, match='No such file'):
        read_image(tmp_path / 'missing.jpg')


@pytest.fixture
def read_mask(tiny, tmp_path):
    """Writes a picture as a file and reads it as a mask: (48, 64) bool."""
    def read(picture, kind='PNG', **options):
        (tmp_path / 'm').write_bytes(encode(picture, kind, **options))
        return read_mask_image(tmp_path / 'm')

    return read


@pytest.fixture
def grey(tiny):
    """Object 1 in white on black, as a picture in a mode with the other channels at will."""
    return Image.fromarray(tiny.masks[1].astype(np.uint8) * 255)


@pytest.mark.parametrize('mode, kind', [
    ('1', 'PNG'), ('L', 'PNG'), ('LA', 'PNG'), ('P', 'PNG'), ('RGB', 'PNG'), ('RGBA', 'PNG'), ('I;16', 'PNG'),
    ('1', 'TIFF'), ('L', 'TIFF'), ('LA', 'TIFF'), ('P', 'TIFF'), ('PA', 'TIFF'), ('RGB', 'TIFF'), ('RGBA', 'TIFF'),
    ('RGBX', 'TIFF'), ('CMYK', 'TIFF'), ('YCbCr', 'TIFF'), ('I', 'TIFF'), ('F', 'TIFF'), ('I;16', 'TIFF'),
    ('I;16B', 'TIFF'), ('RGB', 'BMP'), ('P', 'GIF'), ('L', 'PPM'), ('I', 'PPM'), ('LA', 'JPEG2000'), ('RGB', 'WEBP')])
def test_mask_image_of_any_mode(tiny, grey, read_mask, mode, kind):
    lossless = dict(lossless=True) if kind == 'WEBP' else {}
    np.testing.assert_array_equal(read_mask(grey.convert(mode), kind, **lossless), tiny.masks[1])


def test_a_mask_that_is_no_image(tmp_path):
    (tmp_path / 'm.png').write_bytes(b'no picture')
    for read, kind in ((read_mask_image, 'a mask image'), (read_image, 'an image')):
        with pytest.raises(BadSample, match=f'^cannot be decoded as {kind}: it is no picture, or damaged$'):
            read(tmp_path / 'm.png')


@pytest.mark.parametrize('mode', ['LA', 'RGBA', 'PA'])
def test_what_is_transparent_is_outside(tiny, grey, read_mask, mode):
    """Inside is what is not black on a black ground: the colour and the alpha of a pixel must both be above 0."""
    other = Image.fromarray(tiny.masks[2].astype(np.uint8) * 255)
    white, both = Image.new('L', grey.size, 255), tiny.masks[1] & tiny.masks[2]
    for colour, alpha, inside in ((white, grey, tiny.masks[1]), (grey, white, tiny.masks[1]), (grey, other, both)):
        picture = colour.convert(mode)
        picture.putalpha(alpha)
        np.testing.assert_array_equal(read_mask(picture, 'TIFF' if mode == 'PA' else 'PNG'), inside)


def test_of_a_palette_the_colours_count(tiny, read_mask):
    inside = tiny.masks[1].astype(np.uint8)
    for palette, expected in (([255, 255, 255, 0, 0, 0], ~tiny.masks[1]), ([0, 0, 0, 0, 0, 1], tiny.masks[1]),
                              ([9, 0, 0, 0, 9, 0], np.ones_like(tiny.masks[1]))):
        picture = Image.fromarray(inside)
        picture.putpalette(palette)
        assert picture.mode == 'P'
        np.testing.assert_array_equal(read_mask(picture), expected)
        for transparency, hidden in ((0, inside == 0), (b'\xff\x00', inside == 1)):
            np.testing.assert_array_equal(read_mask(picture, transparency=transparency), expected & ~hidden)


@pytest.mark.parametrize('mode, colour', [('1', 1), ('L', 255), ('RGB', (255, 255, 255)), ('I;16', 255)])
def test_a_colour_that_stands_for_transparent_is_outside(grey, read_mask, mode, colour):
    assert not read_mask(grey.convert(mode), transparency=colour).any()


def test_numbers_that_are_not_eight_bits(tiny, read_mask):
    mask = tiny.masks[1]
    small = {np.uint16: 1, np.int32: 2**20, np.float32: 1e-3}
    for kind, value in small.items():
        np.testing.assert_array_equal(read_mask(Image.fromarray(mask.astype(kind) * kind(value)), 'TIFF'), mask)
    values = np.where(mask, np.float32(0.5), np.float32(np.nan))
    np.testing.assert_array_equal(read_mask(Image.fromarray(values), 'TIFF'), mask)
    lightness = Image.merge('LAB', [Image.fromarray(band) for band in
                                    (mask.astype(np.uint8) * 90, *2 * [np.full_like(mask, 128, np.uint8)])])
    np.testing.assert_array_equal(read_mask(lightness, 'TIFF'), mask)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_mask_turns_with_its_exif_tag_as_its_picture_does(tiny, grey, read_mask, orientation):
    exif = grey.getexif()
    exif[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encode(grey, 'PNG', exif=exif)))))
    np.testing.assert_array_equal(read_mask(grey, exif=exif), shown > 0)
    picture = decode_image(encode(grey, 'PNG', exif=exif), 'x')
    np.testing.assert_array_equal(picture[0] > 0, shown > 0)
