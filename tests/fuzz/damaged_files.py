"""Damage to whole files, and to pictures and masks."""

import io
import os
import struct

from kinds import PIXELS, kind
from PIL import Image

PICTURE = ('.jpg', '.png')
HIDDEN_NAMES = ('._{}', '.{}.swp', '.DS_Store', 'Thumbs.db', '._.DS_Store', 'desktop.ini')


# Bytes ---------------------------------------------------------------------------------------------------------------

@kind()
def truncated(rng, root, file):
    size = file.stat().st_size
    length = int(rng.integers(size))
    # Behind the end of the text, of the picture or of the archive are only blanks, or blocks of zeros.
    if not file.read_bytes()[length:].strip(b'\0\r\n '):
        return None
    os.truncate(file, length)
    return f'{size} -> {length} bytes'


@kind()
def zeroed_tail(rng, root, file):
    data = file.read_bytes()
    start = int(rng.integers(len(data)))
    if not data[start:].strip(b'\0\r\n '):
        return None
    if file.suffix == '.tar' and len(data) - start < 2**15:
        return None  # the zeros may be those that an archive ends with, and nothing else tells what it held
    file.write_bytes(data[:start] + bytes(len(data) - start))
    return f'from byte {start} on'


@kind()
def zero_block(rng, root, file):
    data = file.read_bytes()
    # Blocks of a disk or an archive.
    length = 512 * int(rng.integers(1, 17))
    start = 512 * int(rng.integers(1 + len(data) // 512))
    block = data[start:start + length]
    if not block.strip(b'\0\r\n '):
        return None
    file.write_bytes(data[:start] + bytes(len(block)) + data[start + length:])
    return f'{len(block)} bytes from {start} on'


@kind('.jpg', free=PIXELS)
def flipped_bit_of_a_jpeg(rng, root, file):
    return _flip(rng, file, 600)


@kind('.png', '.npz')
def flipped_bit_under_a_check_sum(rng, root, file):
    data, start = file.read_bytes(), 0
    if file.suffix == '.npz':  # of the parts of a zip archive only the contents of the files have one
        start = data.index(b'.npy') + 30
        return _flip(rng, file, start, data.index(b'PK\x03\x04', start))
    return _flip(rng, file, start)


@kind('.json', '.csv', '.p', '.tar', '.npz', '.mp4', free=('*',), may_vanish=True)
def flipped_bit(rng, root, file):
    return _flip(rng, file, 0)


def _flip(rng, file, first, stop=None):
    data = bytearray(file.read_bytes())
    place = int(rng.integers(min(first, len(data) - 1), stop or len(data)))
    data[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(data)
    return f'byte {place}'


# Files ---------------------------------------------------------------------------------------------------------------

@kind()
def emptied(rng, root, file):
    file.write_bytes(b'')
    return 'no bytes'


@kind('.jpg', '.png', '.mp4', '.csv', '.p')
def deleted(rng, root, file):
    file.unlink()
    return 'no such file'


@kind('.json', '.npz', '.tar', may_vanish=True)
def deleted_with_what_it_lists(rng, root, file):
    file.unlink()
    return 'no such file'


@kind('.jpg', '.png', '.mp4', '.csv', '.p')
def folder_in_place(rng, root, file):
    file.unlink()
    file.mkdir()
    return 'a folder of that name'


@kind('.json', '.npz', '.tar', may_vanish=True)
def folder_in_place_of_what_it_lists(rng, root, file):
    return folder_in_place(rng, root, file)


@kind()
def dangling_link(rng, root, file):
    file.unlink()
    file.symlink_to(file.with_name('nothing'))
    return 'a link to nothing'


@kind()
def other_kind_of_file(rng, root, file):
    """A file with the content of one of another kind."""
    others = [path for path in sorted(root.rglob('*')) if path.is_file() and path.suffix != file.suffix]
    others = [path for path in others if not {path.suffix, file.suffix} <= set(PICTURE)]
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    file.write_bytes(other.read_bytes())
    return f'the content of {other.name}'


@kind(*PICTURE)
def swapped_pictures(rng, root, file):
    """Two pictures, or two masks, of different proportions have changed places."""
    width, height = Image.open(file).size
    others = [path for path in sorted(file.parent.glob(f'*{file.suffix}'))
              if abs(Image.open(path).width - Image.open(path).height * width / height) > 30]
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)
    return f'and {other.name} have changed places'


@kind()
def hidden_files(rng, root, file):
    """Files that other systems leave beside the data."""
    name = HIDDEN_NAMES[int(rng.integers(len(HIDDEN_NAMES)))].format(file.name)
    (file.parent / name).write_bytes(b'\0\5\x16\7' + bytes(200))
    return f'{name} beside it'


@kind('.jpg', '.png', '.json', '.npz', '.tar', may_vanish=True)
def name_that_is_not_utf8(rng, root, file):
    """The file, or a copy of it beside it."""
    odd = os.path.join(os.fsencode(file.parent), b'sa_\xff\xfe' + os.fsencode(file.name))
    if rng.integers(2):
        os.rename(file, odd)
        return f'renamed to {odd!r}'
    with open(odd, 'wb') as stream:
        stream.write(file.read_bytes())
    return f'copied to {odd!r}'


# Pictures ------------------------------------------------------------------------------------------------------------

@kind('.jpg')
def bytes_behind_the_end(rng, root, file):
    more = [b'\0' * 4000, b'trailer' * 99, file.read_bytes()][int(rng.integers(3))]
    file.write_bytes(file.read_bytes() + more)
    return f'{len(more)} more bytes'


@kind('.jpg')
def turned_by_exif_alone(rng, root, file):
    """The tag says that the picture lies on its side, the masks are for the stored pixels."""
    width, height = Image.open(file).size
    if abs(width - height) < 8:
        return None  # as good as square
    orientation = int(rng.integers(5, 9))
    file.write_bytes(_with_orientation(file.read_bytes(), orientation))
    return f'orientation {orientation}'


@kind('.jpg', free=PIXELS)
def turned_with_exif(rng, root, file):
    """Stored lying, with the tag that sets it upright again: nothing changes but for the loss of compression."""
    stream = io.BytesIO()
    Image.open(file).transpose(Image.Transpose.ROTATE_90).save(stream, 'JPEG', quality=95)
    file.write_bytes(_with_orientation(stream.getvalue(), 6))
    return 'orientation 6'


def _with_orientation(jpeg, orientation):
    body = b'Exif\0\0MM\0*\0\0\0\x08' + struct.pack('>HHHIHHI', 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + jpeg[2:]


@kind('.png')
def mask_of_another_mode(rng, root, file):
    mode = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16')[int(rng.integers(7))]
    Image.open(file).convert('L').convert(mode).save(file)
    return f'mode {mode}'


@kind('.png')
def mask_in_alpha(rng, root, file):
    mask = Image.open(file).convert('L')
    mode = ('LA', 'RGBA')[int(rng.integers(2))]
    picture = Image.new('L', mask.size, 255).convert(mode)
    picture.putalpha(mask)
    picture.save(file)
    return f'white with the mask in the alpha of {mode}'


@kind('.png')
def black_mask(rng, root, file):
    Image.new('L', Image.open(file).size).save(file)
    return 'black'


@kind(*PICTURE)
def wrong_size(rng, root, file):
    picture = Image.open(file)
    width, height = picture.size
    picture.crop((0, 0, width * 2 // 3, height) if rng.integers(2) else (0, 0, width, height * 2 // 3)).save(file)
    return 'a third is cut away'
