"""What all data sets share: length, repeats, substitutes for bad samples, and the making of one sample."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.utils import get_object_from_string
from torch.utils.data import Dataset

from llava_sam2.paths import resolve
from llava_sam2.portable.image_processing import grounding_pixels, vision_pixels
from llava_sam2.portable.regions import region_grid
from llava_sam2.randomness import seed_for

from .images import read_image
from .index import Table, TableBuilder
from .index_store import INDEX_DIR, IndexSource, StoredIndex, load_or_build, unreadable
from .lengths import region_token_estimate, text_token_counts, tokenizer_digest
from .masks import area_mask
from .quarantine import BadSample, Quarantine

_IMAGE_TAGS = 2  # <img> and </img>


class MissingData(FileNotFoundError):
    """A folder or file that a data set needs is not there."""


class GroundedDataset(Dataset):
    """Objects of images, each with a mask and perhaps a caption.

    One sample is a dictionary (S = image_size, G = grounding_size, g = region_grid):

    =================  =========================  ==========================================================
    ``pixel_values``   (3, S, S) float32          ImageNet-normalised, for the vision encoder
    ``g_pixel_values`` (3, G, G) uint8            for the grounding encoder
    ``prompt_masks``   (g, g) bool                cells that the object touches
    ``masks``          (G, G) bool                the object
    ``caption``        str or None
    ``source``         str                        the data set's name
    ``describes``      bool                       the caption is a full description of the region, not a mere phrase
    ``sample_id``      str                        unique and stable within the source
    ``image_key``      str                        equal for samples of the same image
    =================  =========================  ==========================================================

    With ``num_objects > 1`` the masks gain a leading axis of 1 .. num_objects objects of that image and ``caption`` is
    a list. Frame pairs have the names with the suffixes 1 and 2. Every tensor comes straight from the original pixels.

    A subclass provides ``build_index``, ``sample_id``, ``path`` and ``read_mask``; and where the defaults do not fit,
    ``index_source``, ``read_image`` and ``words``. The index has one row per sample. It may hold the columns
    ``image`` and ``object`` (whole numbers that say which rows share an image and an object), ``caption``, and
    ``box_width, box_height, area, image_width, image_height`` (pixels, NaN where unknown). It is made once and kept in
    ``index_dir``.

    Args:
        data_root: folder of the data; relative paths are read against the checkout.
        image_size: S, side of the vision encoder's picture in pixels.
        grounding_size: G, side of the grounding encoder's picture in pixels.
        region_grid: g, cells per side; default image_size // 28, one per image token.
        num_objects: objects of one image in a sample. The first is the sample's own; the others are drawn without
            replacement, a function of ``seed`` and the index alone.
        tokenizer: tokenizer, or ``dict(type=callable, ...)`` that builds one; only to count text tokens for
            ``modality_length``. Without one, 1.5 tokens a word.
        num_image_tokens: image tokens in the prompt, for ``modality_length``.
        repeats: how often the data set stands in one epoch; 2.5 is everything twice and a fixed random half once more.
        max_samples: use the first so many samples of the index only.
        optional: a missing folder or file gives an empty data set and a warning instead of an error.
        seed: of the fractional repeats, the companions and the substitutes.
        prepare: None, or a callable or ``dict(type=callable, ...)`` that is called once before the folder is read, for
            example to write demo data.
        name: the ``source`` of the samples; default depends on the data set.
        index_dir: folder of the indexes, see ``index_store``.

    Raises:
        MissingData: a folder or file is not there (unless ``optional``).
        ValueError: an argument makes no sense.
    """

    #: Name, owner and terms of the data, for model cards; models trained on it inherit the terms.
    licence = ''
    #: Where to get the data, one sentence.
    obtain = ''
    #: Whether captions are full descriptions of their region, which the caption task may learn from.
    describes = False

    def __init__(self, data_root: str | Path, image_size: int = 448, grounding_size: int = 1024,
                 region_grid: int | None = None, num_objects: int = 1, tokenizer: Any = None,
                 num_image_tokens: int = 256, repeats: float = 1, max_samples: int | None = None,
                 optional: bool = False, seed: int = 0, prepare: Callable | dict | None = None,
                 name: str | None = None, index_dir: str | Path = INDEX_DIR):
        if not (math.isfinite(repeats) and repeats > 0):
            raise ValueError(f'repeats must be a number above 0, got {repeats}')
        for key, value in dict(image_size=image_size, grounding_size=grounding_size, num_objects=num_objects,
                               max_samples=max_samples, region_grid=region_grid).items():
            if value is not None and value < 1:
                raise ValueError(f'{key} must be at least 1, got {value}')
        self.data_root = resolve(data_root)
        self.image_size = image_size
        self.grounding_size = grounding_size
        self.region_grid = region_grid or max(1, image_size // 28)
        self.num_objects = num_objects
        self.tokenizer = tokenizer
        self.num_image_tokens = num_image_tokens
        self.repeats = repeats
        self.max_samples = max_samples
        self.seed = seed
        self.source = name or self.default_name()
        self.quarantine = Quarantine(self.source)
        self.index_dir = index_dir
        if prepare is not None:
            build(prepare)
        stored = self._open_index(optional)
        #: All tables of the index by name.
        self.tables = stored.tables
        #: One row per sample.
        self.index = stored.tables['samples']
        #: Says whether two runs list the same samples, wherever the data lie.
        self.index_digest = stored.digest
        self.quarantine.num_samples = len(self.index) + self.quarantine.count
        self.quarantine.check()
        self._extra_rows = self._draw_extra_rows()
        self._by_image: tuple[np.ndarray | None, np.ndarray] | None = None

    # What a subclass provides ---------------------------------------------------------------------------------------

    def default_name(self) -> str:
        return type(self).__name__.removesuffix('Dataset').lower()

    def index_source(self) -> IndexSource:
        """What the index is made from, by default the whole folder. Called at every start, so it must be quick.

        Raises:
            MissingData: through ``require``.
        """
        remedy = f'Put the data there ({self.obtain})' if self.obtain else 'Put the data there'
        return IndexSource(folders=[self.require(self.data_root, 'data_root', remedy)])

    def build_index(self) -> dict[str, Table]:
        """Read what the folder holds, sorted, without opening images: the table ``samples`` and others at will.

        A row that cannot be used is left out and written down with ``self.quarantine.note``. Where a read attribute is
        made from the index, it must come from ``self.tables``: of a stored index this method is not called.
        """
        raise NotImplementedError

    def sample_id(self, row: int) -> str:
        """Name of one row, unique and stable within the source."""
        raise NotImplementedError

    def path(self, row: int) -> Path:
        """The image file of one row (or the file that holds the image)."""
        raise NotImplementedError

    def read_image(self, row: int) -> torch.Tensor:
        """(3, H, W) uint8 RGB in original size. Raises ``BadSample``."""
        return read_image(self.path(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool, the row's own object. Raises ``BadSample``."""
        raise NotImplementedError

    def words(self, row: int) -> dict[str, str | None]:
        """The words of one row: ``caption``, and what else a source has (``label``, ``kind``)."""
        return dict(caption=self.index['caption'][row] if 'caption' in self.index else None)

    def frames(self, row: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """(3, H, W) uint8 and (H, W) bool in original size, of both frames of a pair. Raises ``BadSample``."""
        image = self.read_image(row)
        yield image, self.read_mask(row, *image.shape[1:])

    # Helpers for subclasses -----------------------------------------------------------------------------------------

    def require(self, path: Path, argument: str, remedy: str) -> Path:
        """Return ``path``, or raise ``MissingData`` that names it, the argument that led there and what to do."""
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingData(f'{path} does not exist ({type(self).__name__}, from {argument}). {remedy}, or set '
                              'optional=True to go on without this data set') from error
        except PermissionError as error:
            raise unreadable(error) from error
        return path

    def full(self, builder) -> bool:
        """Whether the index already holds ``max_samples`` rows, so that reading may end."""
        return self.max_samples is not None and len(builder) >= self.max_samples

    # Map-style data set ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        rows = len(self.index)
        return rows * int(self.repeats) + len(self._extra_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample. A bad one is replaced by another row, a function of seed and row alone, and quarantined.

        Raises:
            IndexError: outside 0 .. len - 1.
            TooManyBadSamples: see ``Quarantine``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is outside the {len(self)} samples of {self.source}')
        wanted = row = self.row(index)
        attempt = 0
        while True:
            try:
                sample = self.load(row, index)
            except BadSample as error:
                self.quarantine.record(self.sample_id(row), error.path or self.path(row), error.reason)
            else:
                self.quarantine.good()
                return sample
            attempt += 1
            row = seed_for(self.seed, 'substitute', self.source, wanted, attempt) % len(self.index)

    def row(self, index: int) -> int:
        """The row of the table that position ``index`` of the repeated data set shows."""
        whole = len(self.index) * int(self.repeats)
        return index % len(self.index) if index < whole else int(self._extra_rows[index - whole])

    @property
    def modality_length(self) -> np.ndarray:
        """Sequence length of every sample, repeats included: image block, region tokens (estimated from the box), text.

        (samples,) int32; samplers group by it. Of several objects the sample's own one counts: each is a
        sequence of its own.
        """
        lengths = (self._region_tokens() + (self.num_image_tokens + _IMAGE_TAGS)).astype(np.int32)
        if 'caption' in self.index:
            lengths += self._text_tokens().astype(np.int32)
        return np.concatenate([np.tile(lengths, int(self.repeats)), lengths[self._extra_rows]])

    def _text_tokens(self) -> np.ndarray:
        """(rows,) tokens of each caption; counting a million takes a minute, so the counts are kept like the index."""
        tokenizer, captions = _shared(self.tokenizer), self.index['caption']

        def count() -> dict[str, Table]:
            return dict(samples=Table.of(tokens=text_token_counts(map(captions.__getitem__, range(len(captions))),
                                                                  tokenizer)))

        known = tokenizer_digest(tokenizer)
        if known is None:
            return count()['samples']['tokens']
        source = IndexSource(arguments=dict(index=self.index_digest, tokenizer=known))
        return load_or_build(f'{self.source}-tokens', source, count, self.index_dir).tables['samples']['tokens']

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({self.source}: {len(self)} samples, {len(self.index)} distinct, '
                f'data_root={self.data_root})')

    # One sample -----------------------------------------------------------------------------------------------------

    def load(self, row: int, index: int) -> dict[str, Any]:
        """The sample of ``row``; ``index`` only chooses its companions. Raises ``BadSample``."""
        image = self.read_image(row)
        objects = [self._object(row, image)]
        if self.num_objects > 1:
            for companion in self._companions(row, index):
                try:
                    objects.append(self._object(companion, image))
                except BadSample as error:
                    self.quarantine.record(self.sample_id(companion), error.path or self.path(companion), error.reason)
                if len(objects) == self.num_objects:
                    break
        sample = self.pixels(image)
        if self.num_objects > 1:
            sample |= {key: torch.stack([each[key] for each in objects]) for key in ('prompt_masks', 'masks')}
            sample |= {key: [each[key] for each in objects] for key in objects[0] if key not in sample}
        else:
            sample |= objects[0]
        return sample | self.identity(row)

    def pixels(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Both encoders' pictures of an original image (3, H, W) uint8."""
        return dict(pixel_values=vision_pixels(image, self.image_size),
                    g_pixel_values=grounding_pixels(image, self.grounding_size))

    def regions(self, mask: np.ndarray) -> dict[str, torch.Tensor]:
        """Prompt cells and target of an original mask (H, W) bool.

        Raises:
            BadSample: the mask is empty.
        """
        if not mask.any():
            raise BadSample('the mask is empty')
        return dict(prompt_masks=region_grid(torch.from_numpy(mask), self.region_grid),
                    masks=torch.from_numpy(area_mask(mask, self.grounding_size)))

    def identity(self, row: int) -> dict[str, str]:
        """Where a sample comes from."""
        return dict(source=self.source, sample_id=self.sample_id(row), describes=self.describes,
                    image_key=f'{self.source}:{self.path(row)}')

    def _object(self, row: int, image: torch.Tensor) -> dict[str, Any]:
        return self.regions(self.read_mask(row, *image.shape[1:])) | self.words(row)

    def _companions(self, row: int, index: int) -> Iterator[int]:
        """Rows of the other objects of the row's image, in an order fixed by (seed, index); one row per object."""
        if 'image' not in self.index:
            return
        images, objects = self.index['image'], self.index['object']
        if self._by_image is None:
            # Rows usually come image by image; then nothing is copied out of the mapped file.
            order = None if (images[1:] >= images[:-1]).all() else np.argsort(images, kind='stable')
            self._by_image = order, images if order is None else images[order]
        order, grouped = self._by_image
        start, stop = np.searchsorted(grouped, [images[row], images[row] + 1])
        rows = np.arange(start, stop) if order is None else order[start:stop]
        rng = np.random.default_rng(seed_for(self.seed, 'companions', self.source, index))
        for number in rng.permutation(np.setdiff1d(objects[rows], objects[row])):
            yield int(rng.choice(rows[objects[rows] == number]))

    # The index ------------------------------------------------------------------------------------------------------

    def _open_index(self, optional: bool) -> StoredIndex:
        try:
            source = self.index_source()
            identity = dict(max_samples=self.max_samples, code=self._code())
            source = replace(source, arguments=source.arguments | identity)
            stored = load_or_build(self.source, source, self._build_index, self.index_dir)
            if not len(stored.tables['samples']):
                raise MissingData(f'{type(self).__name__} found no samples in {self.data_root}: check data_root, or '
                                  'set optional=True to go on without this data set')
        except MissingData as error:
            if not optional:
                raise
            print_log(f'{self.source} is left out (optional=True): {error}', 'current', logging.WARNING)
            return StoredIndex(dict(samples=Table.of(object=[])), '')
        problems = stored.tables['problems']
        for row in range(len(problems)):
            self.quarantine.note(*(problems[name][row] for name in ('sample_id', 'path', 'reason')))
        return stored

    @classmethod
    def _code(cls) -> str:
        """A hash of this package and of the class's own files, so that another way to read makes another index."""
        own = {Path(inspect.getfile(each)) for each in cls.mro()[:cls.mro().index(GroundedDataset)]}
        files = sorted(own | set(Path(__file__).parent.glob('*.py')))
        return sha256(b''.join(file.read_bytes() for file in files)).hexdigest() + cls.__qualname__

    def _build_index(self) -> dict[str, Table]:
        tables = self.build_index()
        if self.max_samples is not None:
            tables['samples'] = tables['samples'].head(self.max_samples)
        problems = TableBuilder(sample_id=str, path=str, reason=str)
        for entry in self.quarantine.entries:
            problems.append(**{name: entry[name] for name in problems.kinds})
        return tables | dict(problems=problems.build())

    # Index arithmetic -----------------------------------------------------------------------------------------------

    def _draw_extra_rows(self) -> np.ndarray:
        rows = len(self.index)
        count = round(rows * self.repeats) - rows * int(self.repeats)
        if rows and not count and self.repeats < 1:
            count = 1
        if not count:
            return np.zeros(0, np.int64)
        rng = np.random.default_rng(seed_for(self.seed, 'repeats', self.source))
        return np.sort(rng.permutation(rows)[:count])

    def _region_tokens(self) -> np.ndarray:
        columns = ('box_width', 'box_height', 'area', 'image_width', 'image_height')
        unknown = np.full(len(self.index), np.nan)
        return region_token_estimate(*(self.index[name] if name in self.index else unknown for name in columns),
                                     grid=self.region_grid)


def build(spec: Callable | dict) -> Any:
    """Call a callable, or the ``type`` of a dictionary with its other entries; a dumped config names it by its path."""
    if not isinstance(spec, dict):
        return spec()
    arguments = dict(spec)
    function = named = arguments.pop('type')
    if isinstance(named, str):
        function = get_object_from_string(named)
    if not callable(function):
        raise ValueError(f'type={named!r} is not the dotted path of something that can be called')
    return function(**arguments)


def _shared(tokenizer: Any) -> Any:
    """The tokenizer of a ``dict(type=callable, ...)``, built once for all data sets; anything else as it is."""
    if not isinstance(tokenizer, dict):
        return tokenizer
    key = repr(tokenizer)
    if key not in _tokenizers:
        _tokenizers[key] = build(tokenizer)
    return _tokenizers[key]


_tokenizers: dict[str, Any] = {}
