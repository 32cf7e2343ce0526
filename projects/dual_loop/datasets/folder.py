"""A folder of one's own pictures and masks."""

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from . import folder_layout, folder_objects, label_images, sentences
from .base import GroundedDataset
from .folder_layout import (
    IMAGE_SUFFIXES,
    IMAGES,
    MASKS,
    Files,
    annotation_file,
    list_files,
    nearest,
    normal,
    stem,
)
from .folder_objects import FolderObject, Names, objects_of_coco, objects_of_masks
from .index import Table, TableBuilder
from .index_store import IndexSource, find_files
from .indexed import MissingData
from .instances import Instances
from .label_images import OBJECTS, read_object
from .masks import decode_segmentation, mask_to_size
from .refs import load_instances
from .sentences import captions_file, read_sentences

SPLITS = ('train', 'held_out', 'all')
CAPTIONS = ('any', 'only', 'none')


@DATASETS.register_module()
class FolderDataset(GroundedDataset):
    """One sample per object, or per sentence where it has several; ``docs/custom_data.md`` describes the folder.

    Below ``data_root``: ``images/``, and either ``masks/`` or one json file of COCO, with folders at any depth. A mask
    is called ``NAME.png`` for the picture ``NAME.jpg``, or ``NAME_ANYTHING.png``, or ``NAME/ANYTHING.png``; it holds
    one object or several, see ``label_images.read_objects``. Optional ``captions.json`` or ``captions.csv``, see
    ``sentences``: name -> sentences. The name is that of a mask (``NAME_1``), of an object in it (``NAME:7``, 7 being
    its number in the mask, or the id of the annotation), or of a picture that has one object.

    A sample without caption has None there. Pictures that stand in the held-out part are told by a hash of their name
    alone, so that they stay there whatever is added.

    Args:
        data_root: the folder.
        split: 'train', 'held_out' or 'all'.
        held_out_share: of the pictures, 0 to 1.
        captions: 'any' object; 'only' those with a caption, which loop 2 and held-out masks need; or 'none', those
            without.
        describes: captions are full descriptions; only of ``captions='only'``.
        objects: 'auto', 'one' or 'indexed', see ``label_images.read_objects``.
        annotations: name of the COCO file, where there are several json files.
        **common: see ``GroundedDataset``.

    Raises:
        ValueError: an argument makes no sense, masks and a COCO file, two files of captions, or one that cannot be
            read.
    """

    licence = 'own pictures: terms not stated'
    index_code = (folder_layout, folder_objects, label_images, sentences, Instances, load_instances)
    captions_may_lack = True

    def __init__(self, data_root: str | Path, split: str = 'train', held_out_share: float = 0.2,
                 captions: str = 'any', describes: bool = True, objects: str = 'auto',
                 annotations: str | None = None, **common):
        for name, value, known in (('split', split, SPLITS), ('captions', captions, CAPTIONS),
                                   ('objects', objects, OBJECTS)):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, got {value!r}')
        if not 0 <= held_out_share < 1:
            raise ValueError(f'held_out_share must be a number from 0 and below 1, got {held_out_share}')
        self.split = split
        self.held_out_share = held_out_share
        self.captions = captions
        self.describes = describes and captions == 'only'
        self.objects = objects
        self.annotations = annotations
        super().__init__(data_root, **common)

    # The index ------------------------------------------------------------------------------------------------------

    def index_source(self) -> IndexSource:
        self._coco = annotation_file(self.data_root, self.annotations)
        folders = [self.require(self.data_root / IMAGES, 'data_root', 'Put the pictures there')]
        files = [each for each in (self._coco, captions_file(self.data_root)) if each is not None]
        if self._coco is None:
            folders.append(self.require(self.data_root / MASKS, 'data_root', 'Put the masks there (or a json file of '
                                        f'COCO into {self.data_root})'))
            # A mask that is drawn anew in its place changes the index too.
            files += [folders[1] / name for name in find_files(folders[1], '*')] if folders[1].is_dir() else []
        else:
            self.require(self._coco, 'data_root and annotations', 'Correct the name')
            if (self.data_root / MASKS).is_dir():
                raise ValueError(f'{self.data_root} has both {MASKS} and {self._coco.name}: remove one of them')
        share = None if self.split == 'all' else self.held_out_share
        return IndexSource(files=files, folders=folders,
                           arguments=dict(split=self.split, share=share, captions=self.captions, objects=self.objects))

    def build_index(self) -> dict[str, Table]:
        self._noted: Counter[str] = Counter()
        pictures = list_files(self.find_files('*', IMAGES), IMAGE_SUFFIXES)
        if self._coco is None:
            names = self.find_files('*', MASKS)
            objects = objects_of_masks(self.data_root, names, pictures, self.objects, self._note, self.source)
            crowds = 0
        else:
            names = []
            objects, crowds = objects_of_coco(self._coco, pictures, self._note)
        self._add_captions(Names(objects, pictures, names))
        mine = [each for each in objects if self._is_mine(each.picture)]
        if objects and not mine:
            raise MissingData(f'{self.data_root} has no picture for split={self.split!r}: of {len(pictures.paths)} '
                              f'pictures none falls there with held_out_share={self.held_out_share}. Change it, add '
                              'pictures, or set optional=True to go on without this data set')
        remarks = TableBuilder(text=str)
        for text in self._remarks(pictures, objects, crowds):
            remarks.append(text=text)
        return dict(samples=self._samples(mine, pictures), remarks=remarks.build())

    def _samples(self, objects: list[FolderObject], pictures: Files) -> Table:
        captioned = any(each.sentences for each in objects) and self.captions != 'none'
        more = (dict(caption=str) if captioned else {}) | (dict(label=str) if self._coco else {})
        builder = TableBuilder(name=str, image=int, object=int, file=str, mask=str, level=int, segmentation=str,
                               box_width=float, box_height=float, area=float, image_width=float, image_height=float,
                               **more)
        numbers = {name: number for number, name in enumerate(sorted({each.picture for each in objects}))}
        for number, each in enumerate(sorted(objects, key=lambda each: (each.picture, each.name))):
            sentences = each.sentences if self.captions != 'none' else []
            if self.captions == 'none' and each.sentences or self.captions == 'only' and not sentences:
                continue
            names = ('box_width', 'box_height', 'area', 'image_width', 'image_height')
            for place, sentence in enumerate(sentences or ['']):
                row = dict(caption=sentence, label=each.category)
                builder.append(name=each.name + (f'~{place + 1}' if place else ''), image=numbers[each.picture],
                               object=number, file=pictures.paths[each.picture], mask=each.mask, level=each.level,
                               segmentation=each.segmentation, **dict(zip(names, each.box)),
                               **{key: row[key] for key in more})
        return builder.build()

    def _add_captions(self, names: Names) -> None:
        """Give each object its sentences; what names none is written down."""
        file = captions_file(self.data_root)
        if file is None:
            return
        sentences = [(each, names.meant(each.name)) for each in read_sentences(file)]
        free = names.without_captions([found for _, meant in sentences for found in meant.objects])
        for sentence, meant in sentences:
            problem = sentence.problem or meant.problem
            if not sentence.problem and not meant.known:
                problem += nearest(normal(stem(sentence.name, IMAGE_SUFFIXES)), free)
            if problem:
                self._note(meant.picture, file, sentence.located(problem))
            elif meant.objects:
                meant.objects[0].sentences.append(sentence.text)

    def _remarks(self, pictures: Files, objects: list[FolderObject], crowds: int) -> Iterator[str]:
        with_objects = {each.picture for each in objects}
        for texts, what in (
                (sorted(pictures.paths.keys() - with_objects), 'pictures have no mask that can be used and are not '
                                                               'trained on'),
                (sorted(pictures.others), f'files in {IMAGES} are no pictures of a kind that is read '
                                          f'({" ".join(IMAGE_SUFFIXES)}); save them as JPEG or PNG'),
                ([path for paths in pictures.twins.values() for path in paths],
                 'pictures share their name with another one and are not used: rename them, with their masks')):
            if texts:
                yield f'{len(texts)} {what}: {", ".join(texts[:5])}{", ..." * (len(texts) > 5)}'
        if crowds:
            yield f'{crowds} annotations with iscrowd outline a group and are no objects'

    def _is_mine(self, picture: str) -> bool:
        """Whether a picture belongs to this part, by its name."""
        return self.split == 'all' or self._is_held_out(picture) == (self.split == 'held_out')

    def _is_held_out(self, picture: str) -> bool:
        number = int.from_bytes(sha256(picture.encode('utf-8', 'replace')).digest()[:8], 'big')
        return number < self.held_out_share * 2**64

    def _note(self, picture: str, path: str | Path, reason: str) -> None:
        """Write down what is wrong, in the part that the picture belongs to, so that it counts once."""
        if self._is_mine(picture):
            place = Path(path).relative_to(self.data_root).as_posix()
            self._noted[place] += 1
            again = f' ({self._noted[place]})' if self._noted[place] > 1 else ''
            self.quarantine.note(place + again, path, reason)

    # The rows -------------------------------------------------------------------------------------------------------

    @property
    def captioned(self) -> bool:
        return super().captioned and (self.captions == 'only' or '' not in self.index['caption'])

    def held_out(self, row: int) -> bool:
        """Whether the picture of a row belongs to the held-out part."""
        return self._is_held_out(normal(stem(self.index['file'][row], IMAGE_SUFFIXES)))

    def remarks(self) -> list[str]:
        return list(self.tables['remarks']['text']) if 'remarks' in self.tables else []

    def sample_id(self, row: int) -> str:
        return self.index['name'][row]

    def path(self, row: int) -> Path:
        return self.data_root / IMAGES / self.index['file'][row]

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        if segmentation := self.index['segmentation'][row]:
            size = [self.index[side][row] for side in ('image_height', 'image_width')]
            return decode_segmentation(json.loads(segmentation), height, width, self._coco, stated=size)
        path = self.data_root / MASKS / self.index['mask'][row]
        return mask_to_size(read_object(path, int(self.index['level'][row])), height, width, path)

    def words(self, row: int) -> dict[str, str | None]:
        return super().words(row) | (dict(label=self.index['label'][row] or None) if 'label' in self.index else {})
