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


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA'])
def test_mask_image_of_any_mode(tiny, tmp_path, mode):
    mask = tiny.masks[1]
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(tmp_path / 'm.png')
    np.testing.assert_array_equal(read_mask_image(tmp_path / 'm.png'), mask)
    (tmp_path / 'm.png').write_bytes(b'no picture')
    with pytest.raises(BadSample, match='mask image'):
        read_mask_image(tmp_path / 'm.png')
