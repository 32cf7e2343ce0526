"""SA-V: an object in two frames of a video, from the release's videos or from stored pairs."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS

from llava_sam2.randomness import seed_for

from . import sav_npz
from .base import GroundedDataset
from .index import Table, TableBuilder
from .index_store import IndexSource
from .indexed import MissingData
from .masks import decode_segmentation
from .parallel import map_in_order
from .quarantine import BadSample
from .sav_masklets import FRAMES_PER_MASK, KINDS, code_at, from_text, pairs, read_masklets, to_text, visible_frames
from .videos import read_frames

_FILES_AT_ONCE = 16
_LAYOUTS = (None, 'release', 'npz')
_REMEDY = f'Put the SA-V release (sav_*.mp4 with sav_*_manual.json or sav_*_auto.json) or {sav_npz.PATTERN} there'


@DATASETS.register_module()
class SAVPairDataset(GroundedDataset):
    """The same object in two frames of a video, without words.

    Two layouts, at any depth below ``data_root``:

    - the release: ``sav_000001.mp4`` with ``sav_000001_manual.json`` and ``sav_000001_auto.json`` beside it. A sample
      is an object that is visible in two annotated frames ``gap`` apart. Which two is drawn from all such pairs, in
      either order, by ``seed``, the sample and its position in the repeated data set: with ``repeats=3`` an epoch shows
      three draws of each object, and every epoch the same ones. With ``num_objects`` its companions are objects of
      the same annotation file that the frames show.
    - ``masklet_data_*.npz``, one pair and one object each: ``frame1, frame2`` (H, W, 3), 0..255, and ``mask1, mask2``
      (H, W), 0 outside, of any number type.

    Args:
        data_root: folder of the files.
        layout: 'release' or 'npz'; default what lies in the folder.
        annotations: of the release, the masks that people drew and corrected ('manual'), the automatic ones ('auto')
            or 'both'.
        gap: of the release, smallest and largest distance of the two frames in annotated frames, 6 per second. The
            default is half a second to four seconds.
        pairs: False gives the first frame alone, in which the object is then both described and found: the same
            objects in the same frames, to compare with pairs. The second is neither read nor encoded.
        **common: see ``GroundedDataset``.

    Raises:
        MissingData: neither layout was found.
        ValueError: both were found and ``layout`` does not choose, or an argument makes no sense.
    """

    licence = 'SA-V (Meta): CC BY 4.0'
    obtain = 'Videos and masklets: https://ai.meta.com/datasets/segment-anything-video'
    index_code = (read_masklets, sav_npz)
    ids_are_unique = True

    def __init__(self, data_root: str | Path, layout: str | None = None, annotations: str = 'manual',
                 gap: Sequence[int] = (3, 24), pairs: bool = True, **common):
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be 'release', 'npz' or None, got {layout!r}")
        if annotations not in KINDS:
            raise ValueError(f'annotations must be one of {", ".join(KINDS)}, got {annotations!r}')
        if len(gap) != 2 or not all(isinstance(bound, int) for bound in gap) or not 1 <= gap[0] <= gap[1]:
            raise ValueError(f'gap must be (min, max), two whole numbers with 1 <= min <= max, got {gap!r}')
        self.layout = layout
        self.annotations = annotations
        self.gap = tuple(gap)
        self.suffixes = ('1', '2') if pairs else ('', )
        self._last_file: tuple[str, list] | None = None
        super().__init__(data_root, **common)

    def default_name(self) -> str:
        return 'sav'

    def index_source(self) -> IndexSource:
        return IndexSource(folders=[self.require(self.data_root, 'data_root', _REMEDY)],
                           arguments=dict(layout=self.layout, annotations=self.annotations, gap=self.gap))

    def build_index(self) -> dict[str, Table]:
        archives = [] if self.layout == 'release' else self.find_files(sav_npz.PATTERN)
        annotated = [] if self.layout == 'npz' else self.find_files('sav_*.json')
        if archives and annotated:
            raise ValueError(f"{self.data_root} holds both {sav_npz.PATTERN} and the SA-V release's sav_*.json: set "
                             "layout='npz' or layout='release', or data_root to a folder with one of them")
        if archives:
            return dict(samples=Table.of(file=archives))
        endings = tuple(f'_{kind}.json' for kind in KINDS[self.annotations])
        files = [name for name in annotated if name.endswith(endings)]
        if not files and not self.quarantine.count:
            wanted = [f'sav_*{ending}' for ending in endings] if self.layout != 'npz' else []
            wanted += [sav_npz.PATTERN] if self.layout != 'release' else []
            remedy = f', but {annotated[0]}: set annotations to the kind that is there' if annotated else f'. {_REMEDY}'
            raise MissingData(f'SAVPairDataset found no samples in {self.data_root}: no {" or ".join(wanted)}{remedy}, '
                              'or set optional=True to go on without this data set')
        items = [(self.data_root, files[first:first + _FILES_AT_ONCE], self.gap)
                 for first in range(0, len(files), _FILES_AT_ONCE)]
        samples, listed = [_samples_of((self.data_root, [], self.gap))[0]], 0
        for table, problems in map_in_order(_samples_of, items, f'index of {self.source}, {len(files)} files'):
            for problem in problems:
                self.quarantine.note(*problem)
            samples.append(table)
            listed += len(table)
            if self.max_samples is not None and listed >= self.max_samples:
                break
        return dict(samples=Table.concatenate(samples))

    def sample_id(self, row: int) -> str:
        file = self.index['file'][row]
        return _object_id(file, self.index['object'][row]) if self._is_release else file.removesuffix('.npz')

    def path(self, row: int) -> Path:
        path = self.data_root / self.index['file'][row]
        return video_of(path) if self._is_release else path

    def load(self, row: int, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        frames = list(self._release_frames(row, index) if self._is_release else self._stored_frames(row))
        objects = [[self.regions(mask) for _, _, mask in frames]]
        if self.num_objects > 1 and self._is_release:
            objects += self._companion_regions(row, index, frames)
        for place, (suffix, (number, image, _)) in enumerate(zip(self.suffixes, frames)):
            regions = objects[0][place]
            if self.num_objects > 1:
                regions = {key: torch.stack([each[place][key] for each in objects]) for key in regions}
            sample |= {f'{key}{suffix}': value for key, value in (self.pixels(image) | regions).items()}
            sample[f'image_key{suffix}'] = f'{self.source}:{self.path(row)}:{number}'
        sample['caption'] = [None] * len(objects) if self.num_objects > 1 else None
        return sample | dict(source=self.source, sample_id=self.sample_id(row), describes=self.describes)

    def frames(self, row: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Both frames, or the first; of the release the pair that the row's first position shows."""
        frames = self._release_frames(row, row) if self._is_release else self._stored_frames(row)
        for _, image, mask in frames:
            yield image, mask

    @property
    def _is_release(self) -> bool:
        return 'visible' in self.index

    def _stored_frames(self, row: int) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
        """Number, pixels and mask of the frames of an npz file."""
        arrays = sav_npz.read_arrays(self.path(row), len(self.suffixes))
        for number in range(1, len(self.suffixes) + 1):
            image = sav_npz.frame_pixels(arrays[f'frame{number}'], f'frame{number}')
            yield number, image, sav_npz.frame_mask(arrays[f'mask{number}'], image, f'mask{number}')

    def _release_frames(self, row: int, index: int) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
        """Number, pixels and mask of the frames of a video that position ``index`` shows."""
        possible = pairs(from_text(self.index['visible'][row]), self.gap)
        draw = seed_for(self.seed, 'pair', self.source, self.sample_id(row), int(index))
        pair = possible[draw % len(possible)].tolist()[:len(self.suffixes)]
        self._masklets(row)  # before the video, which takes longer
        images = read_frames(self.path(row), [FRAMES_PER_MASK * frame for frame in pair])
        for frame, image in zip(pair, images):
            yield FRAMES_PER_MASK * frame, image, self._release_mask(row, frame, image)

    def _masklets(self, row: int) -> list[list[Any]]:
        """The annotation file of a row; that of the last one is kept."""
        file = self.index['file'][row]
        if self._last_file is None or self._last_file[0] != file:
            self._last_file = file, read_masklets(self.data_root / file)
        return self._last_file[1]

    def _release_mask(self, row: int, frame: int, image: torch.Tensor) -> np.ndarray:
        """(height, width) bool, a row's object at an annotated frame with the picture ``image``."""
        masklets, number = self._masklets(row), self.index['object'][row]
        path = self.data_root / self.index['file'][row]
        is_there = frame < len(masklets) and number < len(masklets[frame])
        code = code_at(masklets, frame, number, path) if is_there else None
        if code is None:
            raise BadSample(f'object {number} has gone from annotated frame {frame} since the index was made', path)
        height, width = image.shape[1:]
        size = [height, width]
        if code['size'] != size:
            raise BadSample(f'frames have the height and width {size}, their masks {code["size"]}', self.path(row))
        return decode_segmentation(code, height, width, path)

    def _companion_regions(self, row: int, index: int, frames: Sequence[tuple[int, torch.Tensor, np.ndarray]]
                           ) -> list[list[dict[str, torch.Tensor]]]:
        """Regions in the frames of up to ``num_objects - 1`` further objects, in an order fixed by (seed, index)."""
        shown = [number // FRAMES_PER_MASK for number, _, _ in frames]
        rng = np.random.default_rng(seed_for(self.seed, 'companions', self.source, index))
        found: list[list[dict[str, torch.Tensor]]] = []
        for companion in map(int, rng.permutation(self._rows_beside(row))):
            if len(found) == self.num_objects - 1:
                break
            visible = from_text(self.index['visible'][companion])
            if not all(frame < len(visible) and visible[frame] for frame in shown):
                continue
            try:
                found.append([self.regions(self._release_mask(companion, frame, image))
                              for frame, (_, image, _) in zip(shown, frames)])
            except BadSample as error:
                self.quarantine.record(self.sample_id(companion), error.path or self.path(companion), error.reason)
        return found

    def _rows_beside(self, row: int) -> list[int]:
        """Rows of the other objects of a row's annotation file; they stand together in the index."""
        files = self.index['file']
        before = takewhile(lambda other: files[other] == files[row], range(row - 1, -1, -1))
        after = takewhile(lambda other: files[other] == files[row], range(row + 1, len(self.index)))
        return sorted([*before, *after])


def video_of(annotation_file: Path) -> Path:
    """The video beside an annotation file of the release."""
    return annotation_file.with_name(annotation_file.stem.rpartition('_')[0] + '.mp4')


def _object_id(file: str, number: int) -> str:
    return f'{file.removesuffix(".json")}_{number}'


def _samples_of(item: tuple[Path, list[str], tuple[int, int]]) -> tuple[Table, list[tuple[str, str | Path, str]]]:
    """The rows of some annotation files of the release, and (sample id, path, reason) of what is bad there."""
    root, files, gap = item
    builder = TableBuilder(file=str, object=int, visible=str, box_width=float, box_height=float, area=float,
                           image_width=float, image_height=float)
    problems = []
    for file in files:
        path = root / file
        try:
            masklets = read_masklets(path)
            if not video_of(path).is_file():
                raise BadSample('the video is missing', video_of(path))
        except BadSample as error:
            problems.append((file.removesuffix('.json'), error.path, error.reason))
            continue
        for number in range(len(masklets[0]) if masklets else 0):
            try:
                _list_object(builder, file, number, masklets, gap, path)
            except BadSample as error:
                problems.append((_object_id(file, number), error.path, error.reason))
    return builder.build(), problems


def _list_object(builder: TableBuilder, file: str, number: int, masklets: list, gap: tuple[int, int],
                 path: Path) -> None:
    """Add the row of one object, if a pair of its frames fits the gap; its size is that of the first visible mask."""
    visible = visible_frames(masklets, number, path)
    if not len(pairs(visible, gap)):
        return
    code = masklets[visible.argmax()][number]
    height, width = code['size']
    mask = decode_segmentation(code, height, width, path)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise BadSample('the mask is empty', path)
    builder.append(file=file, object=number, visible=to_text(visible), area=mask.sum(), image_height=mask.shape[0],
                   image_width=mask.shape[1], box_height=np.ptp(rows) + 1, box_width=np.ptp(columns) + 1)
