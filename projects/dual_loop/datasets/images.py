"""Image files to pixels."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from .quarantine import BadSample

_DECODERS = {b'\xff\xd8\xff': decode_jpeg, b'\x89PNG': decode_png}
_PIL_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


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
        BadSample: not an image, or cut off.
    """
    for magic, decode in _DECODERS.items():
        if data.startswith(magic):
            try:
                image = decode(_as_tensor(data), mode=ImageReadMode.RGB, apply_exif_orientation=True)
            except RuntimeError:
                break
            if image.dtype == torch.uint8:
                return image
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = _eight_bit(ImageOps.exif_transpose(picture))
    except _PIL_ERRORS as error:
        raise BadSample(f'cannot be decoded as an image: {error}', path) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_image(path: str | Path) -> torch.Tensor:
    """``decode_image`` of a file: (3, H, W) uint8 RGB."""
    return decode_image(read_bytes(path), path)


def read_mask_image(path: str | Path) -> np.ndarray:
    """A mask stored as a picture (1 bit, grey, palette or colour): (H, W) bool, True where any channel is not zero.

    Raises:
        BadSample: missing, empty or not an image.
    """
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            values = np.asarray(picture)
    except _PIL_ERRORS as error:
        raise BadSample(f'cannot be decoded as a mask image: {error}', path) from error
    return values != 0 if values.ndim == 2 else (values[..., :3] != 0).any(-1)


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def _eight_bit(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8. PIL's own conversion of 16-bit grey clips at 255 instead of scaling."""
    if picture.mode.startswith('I;16'):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return np.array(picture.convert('RGB'))
