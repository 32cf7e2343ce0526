"""Describe Anything data: long captions of image regions."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from mmengine.registry import DATASETS
from pycocotools import mask as coco

from .base import GroundedDataset
from .images import decode_image
from .index import Table, TableBuilder
from .masks import decode_segmentation
from .refcoco import excluded_ids
from .tars import TarReader, tar_members

SPLITS = ('SAV', 'COCOStuff', 'LVIS', 'Mapillary', 'OpenImages', 'PACO')
_NESTS = ('regions', 'items', 'objects', 'annotations', 'list')
_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


@DATASETS.register_module()
class DescribeAnythingDataset(GroundedDataset):
    """One sample per described region; ``caption`` is the whole description.

    Below ``data_root``: ``{split}/annotations.json``, id to one region or a list of them, each with ``caption`` and
    ``mask_rle``; and ``{split}/images/*.tar`` with a member ``{id}.jpg`` per id, in SAV ``{id}.{t}.jpg`` per
    frame. There the first frame stands for the video; with a list of masks, one per frame, the first frame that has
    both. The ``.pickle`` members beside the images are not read.

    Args:
        data_root: folder of the splits.
        split: 'SAV', 'COCOStuff', 'LVIS', 'Mapillary', 'OpenImages' or 'PACO'.
        exclude_image_ids: COCO ids (``img_id`` of a region) of images to leave out, or
            ``dict(type=held_out_image_ids, data_root=...)``.
        **common: see ``GroundedDataset``.

    Raises:
        ValueError: an unknown split, or an archive that is refused.
    """

    licence = 'Describe Anything Dataset (NVIDIA): NVIDIA non-commercial licence; pictures as in their sources'

    describes = True

    def __init__(self, data_root: str | Path, split: str = 'SAV',
                 exclude_image_ids: Iterable[int] | Callable | dict = (), **common):
        if split not in SPLITS:
            raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
        self.split = split
        self.exclude_image_ids = exclude_image_ids
        self._reader = TarReader()
        super().__init__(data_root, **common)

    def default_name(self) -> str:
        return f'dam_{self.split.lower()}'

    def build_index(self) -> Table:
        root = self.data_root / self.split
        remedy = 'Download this split of the Describe Anything data'
        listing = self.require(root / 'annotations.json', 'data_root and split', remedy)
        folder = self.require(root / 'images', 'data_root and split', remedy)
        regions = load_regions(listing)
        excluded = excluded_ids(self.exclude_image_ids)
        self._tars = sorted(folder.glob('*.tar'))
        if not self._tars:
            self.require(folder / '*.tar', 'data_root and split', remedy)
        frames = locate_images(self._tars, regions)

        builder = TableBuilder(image_id=str, image=int, object=int, caption=str, counts=str, height=int, width=int,
                               tar=int, offset=int, size=int, box_width=float, box_height=float, area=float,
                               image_width=float, image_height=float)
        for number, (image_id, entries) in enumerate(sorted(regions.items())):
            for position, region in enumerate(flatten(entries)):
                if self.full(builder):
                    return builder.build()
                if isinstance(region, dict) and region.get('img_id') in excluded:
                    continue
                problem = self._append(builder, image_id, number, position, region, frames.get(image_id, {}))
                if problem:
                    self.quarantine.note(f'{image_id}_{position}', listing, problem)
        return builder.build()

    def _append(self, builder: TableBuilder, image_id: str, number: int, position: int, region: object,
                frames: dict[int, tuple[int, int, int]]) -> str | None:
        """Add one region to the table; return what is wrong with it instead, if something is."""
        caption = region.get('caption') if isinstance(region, dict) else None
        if not isinstance(caption, str) or not caption.strip():
            return 'the region has no caption'
        if not frames:
            return f'no archive in {self.split}/images has an image of it'
        masks = region.get('mask_rle')
        frame = min(frames)
        if isinstance(masks, list):
            frame = next((t for t in sorted(frames) if t < len(masks) and masks[t]), None)
            masks = None if frame is None else masks[frame]
        if not _is_compressed_rle(masks):
            return 'the region has no mask_rle {size: [height, width], counts: text}'
        height, width = masks['size']
        code = dict(size=[height, width], counts=masks['counts'].encode('utf-8'))
        _, _, box_width, box_height = coco.toBbox(code)
        tar, offset, size = frames[frame]
        builder.append(image_id=image_id, image=number, object=position, caption=caption.strip(),
                       counts=masks['counts'], height=height, width=width, tar=tar, offset=offset, size=size,
                       box_width=box_width, box_height=box_height, area=float(coco.area(code)), image_width=width,
                       image_height=height)
        return None

    def sample_id(self, row: int) -> str:
        return f'{self.index["image_id"][row]}_{self.index["object"][row]}'

    def path(self, row: int) -> Path:
        return self._tars[self.index['tar'][row]]

    def read_image(self, row: int) -> torch.Tensor:
        path = self.path(row)
        data = self._reader.read(path, int(self.index['offset'][row]), int(self.index['size'][row]))
        return decode_image(data, f'{path}:{self.index["image_id"][row]}')

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        size = [int(self.index[side][row]) for side in ('height', 'width')]
        code = dict(size=size, counts=self.index['counts'][row])
        return decode_segmentation(code, height, width, self.data_root / self.split / 'annotations.json')

    def describe(self, row: int) -> dict[str, str | None]:
        return dict(caption=self.index['caption'][row])

    def identity(self, row: int) -> dict[str, str]:
        key = f'{self.source}:{self.path(row)}:{self.index["offset"][row]}'
        return super().identity(row) | dict(image_key=key)


def load_regions(path: Path) -> dict[str, object]:
    """Read an ``annotations.json``: id to region or regions.

    Raises:
        ValueError: not such a file.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is not a JSON file: {error}. Download it again') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} is not a dictionary from id to regions. Download it again')
    return content


def flatten(entry: object) -> Iterator[object]:
    """The regions of one id: itself, the elements of a list, or either below one of a few customary keys."""
    if isinstance(entry, list):
        for each in entry:
            yield from flatten(each)
    elif isinstance(entry, dict) and 'mask_rle' not in entry and (nests := [key for key in _NESTS if key in entry]):
        for key in nests:
            yield from flatten(entry[key])
    else:
        yield entry


def locate_images(tars: list[Path], wanted: dict[str, object]) -> dict[str, dict[int, tuple[int, int, int]]]:
    """Where the images of ``wanted`` ids lie: id -> frame -> (number of the tar, offset, size). Stills are frame 0."""
    places: dict[str, dict[int, tuple[int, int, int]]] = {}
    for number, tar in enumerate(tars):
        for name, offset, size in tar_members(tar):
            member = PurePosixPath(name)
            if member.suffix.lower() not in _IMAGE_SUFFIXES:
                continue
            image_id, frame = member.stem, '0'
            if image_id not in wanted:
                image_id, _, frame = image_id.rpartition('.')
            if image_id in wanted and frame.isdigit():
                places.setdefault(image_id, {})[int(frame)] = number, offset, size
    return places


def _is_compressed_rle(code: object) -> bool:
    return (isinstance(code, dict) and isinstance(code.get('counts'), str) and isinstance(code.get('size'), list)
            and len(code['size']) == 2 and all(isinstance(side, int) and side > 0 for side in code['size']))
