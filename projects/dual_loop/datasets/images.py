"""Image files to pixels."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from .completeness import HOLE, JPEG, PNG, Incomplete, check_jpeg, check_png
from .quarantine import BadSample

_DECODERS = {JPEG: decode_jpeg, PNG: decode_png}
_OTHER_COLOURS = ('P', 'PA', 'CMYK', 'YCbCr', 'HSV')  # whose numbers are no amounts of light
_PIL_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_Read = TypeVar('_Read')


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        BadSample: it is missing, unreadable or empty.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadSample(f'cannot be read: {error.strerror}', path) from error
    if not data:
        raise BadSample('the file has zero bytes', path)
    return data


def decode_image(data: bytes, path: str | Path) -> torch.Tensor:
    """Decode an image file of any kind that PIL knows, the way a viewer shows it (EXIF orientation applied).

    JPEG and PNG go through torchvision (15 ms instead of 37 ms for 1500 x 2250); what it refuses gets a second chance
    with PIL, which reads more kinds and gives the better message. Both use libjpeg and give the same pixels.
    Always at full scale: pictures resized from libjpeg's decoding at half scale are up to 6 grey levels off
    (3000 x 4500 to 1024 x 1024, ``tools/benchmark_data.py``).

    Args:
        data: the file's bytes.
        path: only for the message.

    Returns:
        (3, H, W) uint8 RGB, 0..255; grey is repeated, transparency dropped.

    Raises:
        BadSample: not an image, cut off, or a JPEG or PNG of which a part has not arrived.
    """
    image = _fast(data)
    _check_whole(data, path, decoded=image is not None)
    if image is not None:
        return image
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = _eight_bit(ImageOps.exif_transpose(picture))
    except _PIL_ERRORS as error:
        raise BadSample(f'cannot be decoded as an image: {_why(error)}', path) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_image(path: str | Path) -> torch.Tensor:
    """``decode_image`` of a file: (3, H, W) uint8 RGB."""
    return decode_image(read_bytes(path), path)


def read_mask_image(path: str | Path) -> np.ndarray:
    """A mask stored as a picture of any kind: (H, W) bool, turned the way its EXIF tag says.

    Inside is what is not black where the picture is shown on a black ground: some colour is not zero, and the pixel is
    not fully transparent. Colours of a palette count, not their numbers; of single numbers (grey of 1 to 32 bits,
    floats) all but 0 and NaN are inside; of LAB the lightness decides.

    Raises:
        BadSample: missing, empty, not an image, cut off, or a JPEG or PNG of which a part has not arrived.
    """
    return of_mask_picture(path, not_black)


def of_mask_picture(path: str | Path, read: Callable[[Image.Image], _Read]) -> _Read:
    """What a function reads from a mask stored as a picture, turned the way its EXIF tag says. Raises ``BadSample``."""
    data = read_bytes(path)
    _check_whole(data, path)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            ImageOps.exif_transpose(picture, in_place=True)
            return read(picture)
    except BadSample as error:  # a ValueError too
        raise BadSample(error.reason, path) from error
    except _PIL_ERRORS as error:
        raise BadSample(f'cannot be decoded as a mask image: {_why(error)}', path) from error


def _why(error: Exception) -> str:
    """What PIL says; of a kind that it does not know it names only the address of the object that holds the bytes."""
    return 'it is no picture, or damaged' if isinstance(error, UnidentifiedImageError) else str(error)


def _fast(data: bytes) -> torch.Tensor | None:
    """(3, H, W) uint8 RGB by torchvision; None for what it does not know or refuses."""
    for magic, decode in _DECODERS.items():
        if data.startswith(magic):
            try:
                image = decode(_as_tensor(data), mode=ImageReadMode.RGB, apply_exif_orientation=True)
            except RuntimeError:
                return None
            return image if image.dtype == torch.uint8 else None
    return None


def _check_whole(data: bytes, path: str | Path, decoded: bool = False) -> None:
    try:
        if data.startswith(PNG):
            check_png(data)
        # What torchvision has decoded goes to its end, and only zeros in it can be a hole.
        elif data.startswith(JPEG) and not (decoded and HOLE not in data):
            check_jpeg(data, _fast)
    except Incomplete as error:
        raise BadSample(str(error), path) from error


def not_black(picture: Image.Image) -> np.ndarray:
    """(H, W) bool, see ``read_mask_image``."""
    transparent = picture.info.get('transparency')
    if picture.mode in _OTHER_COLOURS or (transparent is not None and picture.mode in ('1', 'L', 'RGB')):
        picture, transparent = picture.convert('RGBA'), None
    values = np.asarray(picture)
    if values.ndim == 2:
        inside = (values != 0) & (values == values)
        return inside if transparent is None else inside & (values != transparent)
    if picture.mode == 'LAB':
        return values[..., 0] != 0
    has_alpha = picture.getbands()[-1] in ('A', 'a')
    colours = np.moveaxis(values, 2, 0)[:1 if picture.mode in ('LA', 'La') else 3]
    inside = np.bitwise_or.reduce(colours) != 0
    return inside & (values[..., -1] != 0) if has_alpha else inside


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def _eight_bit(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8. PIL's own conversion of 16-bit grey clips at 255 instead of scaling."""
    if picture.mode.startswith('I;16'):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return np.array(picture.convert('RGB'))
