import io
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dual_loop.datasets.completeness import HOLE, jpeg_scans
from dual_loop.datasets.images import decode_image
from dual_loop.datasets.quarantine import BadSample

JPEG_KINDS = dict(
    baseline=dict(quality=90), optimised=dict(quality=60, optimize=True), coarse=dict(quality=5, optimize=True),
    progressive=dict(quality=90, progressive=True), coarse_progressive=dict(quality=20, progressive=True),
    restarts=dict(quality=90, restart_marker_rows=1), full_colour=dict(quality=100, subsampling=0, optimize=True))


@pytest.fixture(scope='module')
def photo():
    """640 x 480 pixels with noise of all scales, as photographs have."""
    rng = np.random.default_rng(0)
    picture = np.full((480, 640, 3), 120.)
    for cells, strength in ((3, 60), (12, 40), (60, 25), (240, 12)):
        noise = rng.standard_normal((cells, cells, 3))
        picture += strength * cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def encode(picture, kind='JPEG', **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def by_pil(data):
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert('RGB'))).permute(2, 0, 1)


@pytest.mark.parametrize('kind', JPEG_KINDS)
@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_a_jpeg_of_which_a_part_has_not_arrived(photo, kind, mode):
    data = encode(photo.convert(mode), **JPEG_KINDS[kind])
    assert torch.equal(decode_image(data, 'x'), decode_image(data + HOLE + b'behind', 'x'))
    rng, size = np.random.default_rng(1), len(data)
    refinements = [range(scan.start, scan.stop) for scan in jpeg_scans(data)
                   if max(band for _, band in scan.bands) == 0 and not scan.bits_left]
    for start in (1, 700, size // 3, size - 2000, size - 513, size - 2, size - 1, *rng.integers(size, size=6)):
        block = 512 * int(rng.integers(1, 5))
        hole = data[:start] + bytes(block) + data[start + block:]
        for broken in (data[:start], data[:start] + bytes(size - start), hole[:size]):
            if broken is hole and any(start in place and start + block in place for place in refinements):
                continue  # the lowest bits of the averages: zeros are as good as anything else there
            with pytest.raises(BadSample):
                decode_image(broken, 'x')


@pytest.mark.parametrize('kind', JPEG_KINDS)
@pytest.mark.parametrize('colour', ['white', 'black', (200, 30, 90)])
def test_plain_pictures_may_have_zeros(photo, kind, colour):
    plain = Image.new('RGB', (2000, 1500), colour)
    shown = plain.copy()
    shown.paste(photo.resize((200, 150)), (900, 700))
    for picture in (plain, shown):
        data = encode(picture, **JPEG_KINDS[kind])
        assert torch.equal(decode_image(data, 'x'), by_pil(data))
    if kind == 'optimised':
        assert HOLE in data, 'the case that the test is for'


def test_zeros_beside_the_picture_do_not_count(photo):
    thumbnail = encode(photo.resize((64, 48)))
    exif = photo.getexif()
    exif[0x010E] = 'x' + '\0' * 3000
    data = encode(photo, exif=exif.tobytes() + thumbnail + bytes(2000), comment=bytes(3000),
                  icc_profile=bytes(100_000))
    assert data.count(b'\xff\xd9') > 1 and HOLE in data
    for whole in (data, data + bytes(5000), data + thumbnail):
        assert torch.equal(decode_image(whole, 'x'), by_pil(data))
    with pytest.raises(BadSample, match='truncated|not fully arrived'):
        decode_image(data[:-2] + bytes(5000), 'x')


def test_several_pictures_in_one_file(photo):
    second = photo.rotate(180)
    data = encode(photo, 'MPO', save_all=True, append_images=[second], quality=90)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert torch.equal(decode_image(data, 'x'), by_pil(data))
    first = data.index(b'\xff\xd9') + 2
    cut = data[:first - 20_000] + bytes(20_000) + data[first:]
    with pytest.raises(BadSample, match='truncated|not fully arrived'):
        decode_image(cut, 'x')
    assert torch.equal(decode_image(data[:-5000], 'x'), by_pil(data)), 'the one that is shown is whole'


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_a_png_of_which_a_part_has_not_arrived(photo, mode):
    picture = photo.convert('L') if mode == 'I;16' else photo
    data = encode(picture.convert(mode), 'PNG')
    whole = decode_image(data, 'x')
    assert torch.equal(decode_image(data + b'behind', 'x'), whole)
    rng, size = np.random.default_rng(1), len(data)
    for start in (9, 20, 60, size // 2, size - 13, size - 12, size - 5, size - 1, *rng.integers(size, size=10)):
        flipped = data[:start] + bytes([data[start] ^ 4]) + data[start + 1:]
        for broken in (data[:start], data[:start] + bytes(size - start), flipped):
            with pytest.raises(BadSample):
                decode_image(broken, 'x')


def test_a_lost_orientation_is_noticed(photo):
    exif = photo.getexif()
    exif[0x0112] = 3
    data = encode(photo, 'PNG', exif=exif)
    start = data.index(b'eXIf')
    assert zlib.crc32(data[start:start + 30]) and torch.equal(decode_image(data, 'x'), by_pil(data).flip(1, 2))
    with pytest.raises(BadSample, match='check sum'):
        decode_image(data[:start + 20] + bytes([data[start + 20] ^ 1]) + data[start + 21:], 'x')
