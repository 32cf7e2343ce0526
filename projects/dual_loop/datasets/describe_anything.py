"""Describe Anything data: long captions of image regions."""

import re
from collections.abc import Container, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import DATASETS
from pycocotools import mask as coco

from .base import GroundedDataset
from .exclusion import Spec, excluded_ids
from .images import decode_image
from .index import Table, TableBuilder
from .index_store import IndexSource, is_hidden, walk
from .json_files import RepeatedKeys, load_json
from .masks import decode_segmentation, run_lengths
from .parallel import map_in_order
from .plain_pickle import UnsafePickle, load_plain_pickle
from .quarantine import BadSample
from .refs import coco_image_id
from .tars import DamagedTar, LongEnd, TarReader, tar_members
from .texts import is_text, printable

SPLITS = ('SAV', 'COCOStuff', 'LVIS', 'Mapillary', 'OpenImages', 'PACO')
COCO_SPLITS = ('COCOStuff', 'LVIS', 'PACO')  # on COCO's images
MAX_PICKLE_BYTES = 64 * 2**20
_NESTS = ('regions', 'items', 'objects', 'annotations', 'list')
_READ = ('caption', 'mask_rle', 'img_id', 'kind')  # of a region
Place = tuple[int, int, int]  # of an image: number of the tar, offset, size
_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
# A part of PACO shows frames of Ego4D, named by the video's UUID and the frame's number: none of COCO's images.
_EGO4D_FRAME = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}_[0-9]+(\.jpe?g)?')


@DATASETS.register_module()
class DescribeAnythingDataset(GroundedDataset):
    """One sample per described region; ``caption`` is the whole description.

    Below ``data_root``: ``{split}/images/*.tar`` with a member ``{id}.jpg`` per id, in SAV ``{id}.{t}.jpg`` per frame.
    There the first frame stands for the video; with a list of masks, one per frame, the first frame that has both.
    The regions are in ``{split}/annotations.json``, id to one region or a list of them, each with ``caption``,
    ``mask_rle`` and on COCO's images ``img_id``; without that file, in a member ``{id}.pickle`` per id, one region or a
    list. Pickles are read without running anything; one that names a global stops the data set, since whoever wrote
    it wrote the others too. One that is merely damaged is a bad sample. Where regions carry a
    ``kind``, so do the samples.

    Args:
        data_root: folder of the splits.
        split: 'SAV', 'COCOStuff', 'LVIS', 'Mapillary', 'OpenImages' or 'PACO'.
        exclude_image_ids: COCO ids of images to leave out, or ``dict(type=held_out_image_ids, data_root=...)``. The
            splits on COCO's images (COCOStuff, LVIS, PACO) need it; ``()`` leaves out nothing. A region whose
            ``img_id`` tells no COCO id may be any of them and is a bad sample, except a frame of Ego4D in PACO. In
            the other splits an image goes by its id in the data set alone.
        **common: see ``GroundedDataset``.

    Raises:
        ValueError: an unknown split, no ``exclude_image_ids`` for a split on COCO's images, or an archive or pickle
            that is refused.
    """

    licence = 'Describe Anything Dataset (NVIDIA): NVIDIA non-commercial licence; pictures as in their sources'
    obtain = 'Archives and annotations: https://huggingface.co/datasets/nvidia/describe-anything-dataset'
    index_code = (coco_image_id, load_plain_pickle, tar_members)  # of refs, plain_pickle and tars
    ids_are_unique = True

    describes = True

    def __init__(self, data_root: str | Path, split: str = 'SAV',
                 exclude_image_ids: Spec | None = None, **common):
        if split not in SPLITS:
            raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
        if split in COCO_SPLITS and exclude_image_ids is None:
            raise ValueError(f'{split} shows images of COCO, some of them held out in RefCOCO: set '
                             "exclude_image_ids=dict(type=held_out_image_ids, data_root='data/ref_seg'), or () to "
                             'train on them knowingly')
        self.split = split
        self._reader = TarReader()
        super().__init__(data_root, exclude_image_ids=() if exclude_image_ids is None else exclude_image_ids, **common)

    def default_name(self) -> str:
        return f'dam_{self.split.lower()}'

    def index_source(self) -> IndexSource:
        remedy = 'Download this split of the Describe Anything data'
        self.require(self._listing.parent, 'data_root and split', remedy)
        tars = [self._folder / name for name in self._tar_names()]
        if not tars:
            self.require(self._folder / '*.tar', 'data_root and split', remedy)
        listing = [self._listing] if self._listing.exists() else []
        return IndexSource(files=[*listing, *tars], arguments=dict(split=self.split))

    def build_index(self) -> dict[str, Table]:
        names = self.only_utf8(self._tar_names(), self._folder)
        in_pickles = not self._listing.exists()
        regions = {} if in_pickles else load_regions(self._listing)
        files: dict[str, Path] = dict.fromkeys(regions, self._listing)  # where the regions of an id come from
        images: list[tuple[str, tuple[int, int, int]]] = []
        scan = partial(scan_tar, read_pickles=in_pickles)
        tars = [self._folder / name for name in names]
        for number, found in enumerate(map_in_order(scan, tars, f'index of {self.source}', unit='archives')):
            images += [(stem, (number, offset, size)) for stem, offset, size in found.images]
            for image_id, problem in found.problems:
                self.quarantine.note(image_id, tars[number], problem)
            for image_id, entries in found.regions.items():
                if image_id in regions:
                    self.quarantine.note(f'{image_id} in {names[number]}', tars[number],
                                         f'{files[image_id].name} has regions of that id already')
                else:
                    regions[image_id], files[image_id] = entries, tars[number]
        frames, repeated = locate_images(images, regions)
        contradictions = {image_id: 'the folder images has more than one image of that id, in '
                          + ' and '.join(sorted({names[place[0]] for place in places}))
                          for image_id, places in repeated.items()}
        if isinstance(regions, RepeatedKeys):
            contradictions |= dict.fromkeys(regions.repeated, 'its id stands there twice')
        return dict(samples=self._samples(regions, files, frames, contradictions), tars=Table.of(file=names))

    def _samples(self, regions: dict[str, object], files: dict[str, Path],
                 frames: dict[str, dict[int, Place]], contradictions: dict[str, str]) -> Table:
        """The rows of all regions; ``contradictions`` says what is wrong with some ids."""
        excluded = excluded_ids(self.exclude_image_ids) if self.split in COCO_SPLITS else frozenset()
        listed = {image_id: list(flatten(entries)) for image_id, entries in sorted(regions.items())}
        has_kind = any(isinstance(region, dict) and 'kind' in region for each in listed.values() for region in each)
        builder = TableBuilder(image_id=str, image=int, object=int, caption=str, counts=str, height=int, width=int,
                               tar=int, offset=int, size=int, box_width=float, box_height=float, area=float,
                               image_width=float, image_height=float, **(dict(kind=str) if has_kind else {}))
        for number, (image_id, of_image) in enumerate(listed.items()):
            problem = contradictions.get(image_id) or ('' if is_text(image_id) else 'its id is no valid text') \
                or (self.split in COCO_SPLITS and several_images(of_image))
            for position, region in enumerate(of_image):
                if self.full(builder):
                    return builder.build()
                try:
                    if problem:
                        raise BadSample(problem)
                    if not self._is_held_out(region, excluded):
                        row = region_row(region, frames.get(image_id, {}))
                        if has_kind:
                            row['kind'] = printable(region.get('kind', ''))  # type: ignore[attr-defined]
                        builder.append(image_id=image_id, image=number, object=position, **row)
                except BadSample as error:
                    self.quarantine.note(f'{image_id}_{position}', files[image_id], error.reason)
        return builder.build()

    def _is_held_out(self, region: object, excluded: frozenset[int | str]) -> bool:
        if not excluded or not isinstance(region, dict):
            return False
        name = region.get('img_id')
        if self.split == 'PACO' and isinstance(name, str) and _EGO4D_FRAME.fullmatch(PurePosixPath(name).name):
            return False
        number = coco_image_id(name)
        if number is None:
            raise BadSample('its img_id tells no COCO image, which may be one that is held out')
        return number in excluded

    def sample_id(self, row: int) -> str:
        return f'{self.index["image_id"][row]}_{self.index["object"][row]}'

    def path(self, row: int) -> Path:
        return self._folder / self.tables['tars']['file'][self.index['tar'][row]]

    def picture_names(self, row: int) -> set[int | str]:
        return {self.index['image_id'][row]}

    def read_image(self, row: int) -> torch.Tensor:
        path = self.path(row)
        data = self._reader.bytes_at(path, int(self.index['offset'][row]), int(self.index['size'][row]))
        return decode_image(data, f'{path}:{self.index["image_id"][row]}')

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        size = [int(self.index[side][row]) for side in ('height', 'width')]
        code = dict(size=size, counts=self.index['counts'][row])
        return decode_segmentation(code, height, width, self._listing if self._listing.exists() else self.path(row))

    def words(self, row: int) -> dict[str, str | None]:
        return super().words(row) | (dict(kind=self.index['kind'][row]) if 'kind' in self.index else {})

    def identity(self, row: int) -> dict[str, str]:
        key = f'{self.source}:{self.path(row)}:{self.index["offset"][row]}'
        return super().identity(row) | dict(image_key=key)

    @property
    def _listing(self) -> Path:
        return self.data_root / self.split / 'annotations.json'

    @property
    def _folder(self) -> Path:
        return self.data_root / self.split / 'images'

    def _tar_names(self) -> list[str]:
        if not self._folder.exists():
            return []
        _, names, _ = next(walk(self._folder))
        return [name for name in names if name.endswith('.tar')]


def load_regions(path: Path) -> dict[str, object]:
    """Read an ``annotations.json``: id to region or regions.

    Raises:
        ValueError: not such a file.
    """
    content = load_json(path, keep_repeats=True)
    if not isinstance(content, dict):
        raise ValueError(f'{path} is not a dictionary from id to regions. Download it again')
    return content


def several_images(regions: list[object]) -> str:
    """What is wrong when regions of one image name several images of COCO; '' if nothing is."""
    named = sorted({number for region in regions if isinstance(region, dict)
                    and (number := coco_image_id(region.get('img_id'))) is not None})
    return f'the regions of one image name several of COCO: {", ".join(map(str, named[:3]))}' if len(named) > 1 else ''


def flatten(entry: object) -> Iterator[object]:
    """The regions of one id: itself, the elements of a list, or either below one of a few customary keys."""
    waiting = [entry]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, (list, tuple)):
            waiting += reversed(entry)
        elif isinstance(entry, dict) and 'mask_rle' not in entry and (nests := [key for key in _NESTS if key in entry]):
            waiting += [entry[key] for key in reversed(nests)]
        else:
            yield entry


class TarContent(NamedTuple):
    """What an archive of Describe Anything holds.

    Attributes:
        images: (name without suffix, offset, size) of every image, in bytes.
        regions: id -> regions, of its pickles.
        problems: (id, what is wrong) of the pickles that cannot be used, (file name, what is wrong) of the archive.
    """

    images: list[tuple[str, int, int]]
    regions: dict[str, list]
    problems: list[tuple[str, str]]


def scan_tar(path: Path, read_pickles: bool) -> TarContent:
    """List one archive and, if asked to, read its pickles.

    Of a damaged archive all up to the damage is taken if ``annotations.json`` tells what it lacks, and of one with a
    long end in any case.

    Raises:
        ValueError: it is refused.
    """
    content = TarContent([], {}, [])
    reader = TarReader()
    for name, offset, size in _members(path, content, refuse_damage=read_pickles):
        member = PurePosixPath(name)
        if any(is_hidden(part) for part in member.parts):
            continue
        if member.suffix.lower() in _IMAGE_SUFFIXES:
            content.images.append((member.stem, offset, size))
        elif read_pickles and member.suffix == '.pickle':
            try:
                if not is_text(name):
                    raise BadSample('the name of a pickle is no valid text')
                if size > MAX_PICKLE_BYTES:
                    raise BadSample(f'{name} has {size} bytes, more than any list of regions')
                if member.stem in content.regions:
                    raise BadSample(f'{name} is there twice')
                entries = load_plain_pickle(reader.bytes_at(path, offset, size), f'{path}:{name}')
            except UnsafePickle:
                raise
            except ValueError as error:
                content.problems.append((member.stem, str(error)))
            else:
                content.regions[member.stem] = [_slim(region) for region in flatten(entries)]
    return content


def _members(path: Path, content: TarContent, refuse_damage: bool) -> Iterator[tuple[str, int, int]]:
    is_tar = False
    try:
        for member in tar_members(path):
            yield member
            is_tar = True
    except DamagedTar as error:
        if not is_tar or refuse_damage and not isinstance(error, LongEnd):
            raise
        content.problems.append((path.name, str(error)))


def _slim(region: object) -> object:
    """Without what is not read, such as the bytes of the image."""
    return {key: region[key] for key in _READ if key in region} if isinstance(region, dict) else region


def locate_images(images: Iterable[tuple[str, Place]], wanted: Container[str]
                  ) -> tuple[dict[str, dict[int, Place]], dict[str, list[Place]]]:
    """Where the images of ``wanted`` ids lie: id -> frame -> place, stills being frame 0; and where an id or frame is
    there more than once, id -> places."""
    places: dict[str, dict[int, Place]] = {}
    repeated: dict[str, list[Place]] = {}
    for image_id, place in images:
        frame = '0'
        if image_id not in wanted:
            image_id, _, frame = image_id.rpartition('.')
        if image_id in wanted and re.fullmatch('[0-9]{1,9}', frame):
            first = places.setdefault(image_id, {}).setdefault(int(frame), place)
            if first != place:
                repeated.setdefault(image_id, [first]).append(place)
    return places, repeated


def region_row(region: Any, frames: dict[int, Place]) -> dict[str, Any]:
    """The columns that one region gives, from the first of its image's frames that has a mask.

    Raises:
        BadSample: it has no caption, no usable mask or no image.
    """
    caption = region.get('caption') if isinstance(region, dict) else None
    if isinstance(region, RepeatedKeys):
        raise BadSample(f'the region has the key {min(region.repeated)!r} twice')
    if not is_text(caption):
        raise BadSample('the region has no caption')
    if not frames:
        raise BadSample('no archive in the folder images has an image of it')
    masks = region.get('mask_rle')
    frame = min(frames)
    if isinstance(masks, (list, tuple)):
        frame = next((t for t in sorted(frames) if t < len(masks) and masks[t]), None)
        masks = None if frame is None else masks[frame]
    elif frame:
        raise BadSample('the archive has later frames, but not the first one, which the mask belongs to')
    height, width, counts = compressed_rle(masks)
    code = dict(size=[height, width], counts=counts.encode('ascii'))
    _, _, box_width, box_height = coco.toBbox(code)
    tar, offset, size = frames[frame]
    return dict(caption=caption.strip(), counts=counts, height=height, width=width, tar=tar, offset=offset, size=size,
                box_width=box_width, box_height=box_height, area=float(coco.area(code)), image_width=width,
                image_height=height)


def compressed_rle(code: object) -> tuple[int, int, str]:
    """Height, width and counts of a compressed run-length code, checked, since pycocotools reads past a wrong one.

    Raises:
        BadSample: it is none.
    """
    code = code if isinstance(code, dict) else {}
    counts, size = code.get('counts'), code.get('size')
    if isinstance(counts, bytes):
        counts = counts.decode('latin1')
    if not (isinstance(counts, str) and counts.isascii() and isinstance(size, (list, tuple)) and len(size) == 2
            and all(type(side) is int and 0 < side < 2**16 for side in size)):
        raise BadSample('the region has no mask_rle {size: [height, width], counts: text}')
    runs = run_lengths(counts, 'mask_rle')
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise BadSample(f'the runs of its mask do not add up to {size[0]} x {size[1]} pixels')
    return *size, counts
