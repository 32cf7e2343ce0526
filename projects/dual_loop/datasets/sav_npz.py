"""Frame pairs of SA-V that were stored as npz files: ``frame1, mask1, frame2, mask2``."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from .quarantine import BadSample

PATTERN = 'masklet_data_*.npz'
_KEYS = ('frame1', 'mask1', 'frame2', 'mask2')


def read_arrays(path: Path, frames: int = 2) -> dict[str, np.ndarray]:
    """The arrays of the first so many frames of a pair file.

    Raises:
        BadSample: missing, cut off, or without one of the four.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [key for key in _KEYS if key not in arrays]
            if missing:
                raise BadSample(f'the arrays {", ".join(missing)} are missing', path)
            return {key: arrays[key] for key in _KEYS[:2 * frames]}
    except BadSample:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BadSample(f'cannot be read as an npz file: {error}', path) from error


def frame_pixels(frame: np.ndarray, name: str) -> torch.Tensor:
    """A stored frame to (3, H, W) uint8. Floats count as 0..1 if none is above 1, else as 0..255.

    Raises:
        BadSample: wrong shape or values.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise BadSample(f'{name} has shape {frame.shape}, not (height, width, 3)')
    if frame.dtype != np.uint8:
        if not np.isfinite(frame).all() or frame.min() < 0 or frame.max() > 255:
            raise BadSample(f'{name} has values outside 0..255')
        if np.issubdtype(frame.dtype, np.floating) and frame.max() <= 1:
            frame = frame * 255
        frame = np.rint(frame).astype(np.uint8)
    return torch.from_numpy(frame).permute(2, 0, 1)


def frame_mask(mask: np.ndarray, image: torch.Tensor, name: str) -> np.ndarray:
    """A stored mask to (H, W) bool: inside above half of its scale, which is 1 or 255.

    Raises:
        BadSample: another shape than its frame's.
    """
    if mask.shape != tuple(image.shape[1:]):
        raise BadSample(f'{name} has shape {mask.shape}, its frame {tuple(image.shape[1:])}')
    return mask > (127 if mask.max() > 1 else 0.5)
