"""What all data sets of objects share: their arguments and the making of one sample."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llava_sam2.portable.image_processing import grounding_pixels, vision_pixels
from llava_sam2.portable.regions import region_grid
from llava_sam2.randomness import seed_for

from .callables import shared_tokenizer
from .exclusion import Spec
from .images import read_image
from .index import Table
from .index_store import INDEX_DIR, IndexSource, load_or_build
from .indexed import IndexedDataset
from .lengths import region_token_estimate, text_token_counts, tokenizer_digest
from .masks import area_mask
from .quarantine import BadSample

_IMAGE_TAGS = 2  # <img> and </img>


class GroundedDataset(IndexedDataset):
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
        exclude_image_ids: pictures to leave out, by their number in COCO or by the name of their file without suffix;
            or ``dict(type=held_out_image_ids, data_root=...)``. Without it, a data set whose files are named as those
            of COCO is refused, since RefCOCO holds some of them out; ``()`` leaves out nothing.
        name: the ``source`` of the samples; default depends on the data set.
        index_dir: folder of the indexes, see ``index_store``.

    Raises:
        MissingData: a folder or file is not there (unless ``optional``).
        TooManyBadSamples: there are samples, and too many of them cannot be used.
        ValueError: an argument makes no sense, or pictures of COCO and no ``exclude_image_ids``.
    """

    #: Name, owner and terms of the data, for model cards; models trained on it inherit the terms.
    licence = ''
    #: Whether captions are full descriptions of their region, which the caption task may learn from.
    describes = False
    #: mmengine asks validation's data sets for it, and warns where there is none; nothing here reads it.
    metainfo: dict = {}

    def __init__(self, data_root: str | Path, image_size: int = 448, grounding_size: int = 1024,
                 region_grid: int | None = None, num_objects: int = 1, tokenizer: Any = None,
                 num_image_tokens: int = 256, repeats: float = 1, max_samples: int | None = None,
                 optional: bool = False, seed: int = 0, prepare: Callable | dict | None = None,
                 name: str | None = None, index_dir: str | Path = INDEX_DIR,
                 exclude_image_ids: Spec | None = None):
        for key, value in dict(image_size=image_size, grounding_size=grounding_size, num_objects=num_objects,
                               region_grid=region_grid).items():
            if value is not None and value < 1:
                raise ValueError(f'{key} must be at least 1, got {value}')
        self.image_size = image_size
        self.grounding_size = grounding_size
        self.region_grid = region_grid or max(1, image_size // 28)
        self.num_objects = num_objects
        self.tokenizer = tokenizer
        self.num_image_tokens = num_image_tokens
        self._by_image: tuple[np.ndarray | None, np.ndarray] | None = None
        super().__init__(data_root, repeats, max_samples, optional, seed, prepare, name, index_dir, exclude_image_ids)

    # What a subclass provides ---------------------------------------------------------------------------------------

    def read_image(self, row: int) -> torch.Tensor:
        """(3, H, W) uint8 RGB in original size. Raises ``BadSample``."""
        return read_image(self.path(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool, the row's own object. Raises ``BadSample``."""
        raise NotImplementedError

    def words(self, row: int) -> dict[str, str | None]:
        """The words of one row: ``caption``, and what else a source has (``label``, ``kind``)."""
        return dict(caption=(self.index['caption'][row] or None) if 'caption' in self.index else None)

    @property
    def captioned(self) -> bool:
        """Whether every sample has a caption."""
        return 'caption' in self.index

    def frames(self, row: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """(3, H, W) uint8 and (H, W) bool in original size, of both frames of a pair. Raises ``BadSample``."""
        image = self.read_image(row)
        yield image, self.read_mask(row, *image.shape[1:])

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
        tokenizer, captions = shared_tokenizer(self.tokenizer), self.index['caption']

        def count() -> dict[str, Table]:
            return dict(samples=Table.of(tokens=text_token_counts(map(captions.__getitem__, range(len(captions))),
                                                                  tokenizer)))

        known = tokenizer_digest(tokenizer)
        if known is None:
            return count()['samples']['tokens']
        source = IndexSource(arguments=dict(index=self.index_digest, tokenizer=known))
        return load_or_build(f'{self.source}-tokens', source, count, self.index_dir).tables['samples']['tokens']

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

    def identity(self, row: int) -> dict[str, Any]:
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

    def _region_tokens(self) -> np.ndarray:
        columns = ('box_width', 'box_height', 'area', 'image_width', 'image_height')
        unknown = np.full(len(self.index), np.nan)
        found = (self.index[name] if name in self.index else unknown for name in columns)  # noqa: SIM401 (no mapping)
        return region_token_estimate(*found, grid=self.region_grid)  # type: ignore[misc,arg-type]
