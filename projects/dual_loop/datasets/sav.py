"""SA-V frame pairs, stored as npz files."""

import fnmatch
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .index import Table, TableBuilder
from .quarantine import BadSample

PATTERN = 'masklet_data_*.npz'
_KEYS = ('frame1', 'mask1', 'frame2', 'mask2')


@DATASETS.register_module()
class SAVPairDataset(GroundedDataset):
    """The same object in two frames of a video, without words.

    Reads every ``masklet_data_*.npz`` below ``data_root``, at any depth, sorted by its relative path. A file holds
    ``frame1, frame2`` (H, W, 3), 0..255, and ``mask1, mask2`` (H, W), 0 outside, of any number type.

    Args:
        data_root: folder of the npz files.
        **common: see ``GroundedDataset``.
    """

    licence = 'SA-V (Meta): CC BY 4.0'

    def __init__(self, data_root: str | Path, **common):
        super().__init__(data_root, **common)

    def default_name(self) -> str:
        return 'sav'

    def build_index(self) -> Table:
        root = self.require(self.data_root, 'data_root', f'Put the frame pairs ({PATTERN}) there')
        builder = TableBuilder(file=str)
        for file in find_files(root, PATTERN):
            if self.full(builder):
                break
            builder.append(file=file)
        return builder.build()

    def sample_id(self, row: int) -> str:
        return self.index['file'][row].removesuffix('.npz')

    def path(self, row: int) -> Path:
        return self.data_root / self.index['file'][row]

    def load(self, row: int, index: int) -> dict[str, Any]:
        arrays = read_arrays(self.path(row))
        sample = {}
        for frame in (1, 2):
            image = frame_pixels(arrays[f'frame{frame}'], f'frame{frame}')
            mask = frame_mask(arrays[f'mask{frame}'], image, f'mask{frame}')
            regions = self.regions(mask)
            if self.num_objects > 1:
                regions = {key: each[None] for key, each in regions.items()}
            sample |= {f'{key}{frame}': value for key, value in (self.pixels(image) | regions).items()}
            sample[f'image_key{frame}'] = f'{self.source}:{self.path(row)}:{frame}'
        sample['caption'] = [None] if self.num_objects > 1 else None
        return sample | dict(source=self.source, sample_id=self.sample_id(row), describes=self.describes)


def find_files(root: Path, pattern: str) -> list[str]:
    """Paths of the files below ``root`` (symbolic links included) whose name fits ``pattern``: relative, sorted."""
    found = []
    for folder, _, names in os.walk(root, followlinks=True):
        found += [Path(folder, name).relative_to(root).as_posix() for name in fnmatch.filter(names, pattern)]
    return sorted(found)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The four arrays of a pair file.

    Raises:
        BadSample: missing, cut off, or without one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [key for key in _KEYS if key not in arrays]
            if missing:
                raise BadSample(f'the arrays {", ".join(missing)} are missing', path)
            return {key: arrays[key] for key in _KEYS}
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
