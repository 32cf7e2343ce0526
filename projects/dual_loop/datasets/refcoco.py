"""RefCOCO, RefCOCO+ and RefCOCOg: short human sentences that name one object of a COCO picture."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .index import Table, TableBuilder
from .index_store import IndexSource
from .lengths import numbers_or_nan
from .masks import decode_segmentation
from .plain_pickle import load_plain_pickle
from .refs import (
    VARIANTS,
    excluded_ids,
    exclusion,
    exclusion_source,
    held_out_image_ids,
    is_text,
    load_instances,
    load_refs,
    refs_files,
)

IMAGE_FOLDER = 'coco2014/train2014'


@DATASETS.register_module()
class RefCOCODataset(GroundedDataset):
    """Every sentence of every referred object is a sample; objects in order of ``ref_id``.

    Below ``data_root``: ``{dataset}/instances.json``, ``{dataset}/refs({split_by}).p`` and
    ``{dataset}/coco2014/train2014/*.jpg``. ``caption`` is the sentence in lower case. Where the sentences of a file
    carry a ``kind`` ('attribute' or 'relation'), so do the samples.

    Args:
        data_root: folder of the variants.
        dataset: 'refcoco', 'refcoco+' or 'refcocog'.
        split: 'train', 'val', 'testA', 'testB', or 'test' for refcocog.
        split_by: partition, 'unc' or 'google'; for refcocog 'umd' or 'google'.
        exclude_image_ids: COCO ids of images to leave out, or ``dict(type=held_out_image_ids, data_root=...)``. By
            default 'train' leaves out what any variant and partition below ``data_root`` holds out, and other splits
            nothing; ``()`` leaves out nothing.
        **common: see ``GroundedDataset``.

    Raises:
        ValueError: a split that the variant or partition does not have.
    """

    licence = 'RefCOCO, RefCOCO+, RefCOCOg on COCO 2014: annotations CC BY 4.0, pictures under their Flickr terms'
    obtain = '2014 training images: https://cocodataset.org/#download; annotations: https://github.com/lichengunc/refer'
    index_code = (load_refs, load_plain_pickle)

    def __init__(self, data_root: str | Path, dataset: str = 'refcoco', split: str = 'train', split_by: str = 'unc',
                 exclude_image_ids: Iterable[int] | Callable | dict | None = None, **common):
        if dataset not in VARIANTS:
            raise ValueError(f'dataset must be one of {", ".join(VARIANTS)}, got {dataset!r}')
        if split == 'test' and dataset != 'refcocog':
            raise ValueError(f"{dataset} has no split 'test': use 'testA' (people) or 'testB' (other objects)")
        if split == 'test' and split_by == 'google':
            raise ValueError("the partition 'google' of refcocog has no split 'test', and its val shows images of its "
                             "train: use split_by='umd', which published figures are for")
        if exclude_image_ids is None:
            exclude_image_ids = dict(type=held_out_image_ids, data_root=data_root) if split == 'train' else ()
        self.dataset = dataset
        self.split = split
        self.split_by = split_by
        self.exclude_image_ids = exclusion(exclude_image_ids)
        super().__init__(data_root, **common)

    def default_name(self) -> str:
        return self.dataset

    def index_source(self) -> IndexSource:
        root = self.require(self.data_root / self.dataset, 'data_root and dataset', 'Download the annotations there')
        self.require(self._refs_file, 'data_root, dataset and split_by',
                     f'Set split_by to one of {self._partitions(root)}')
        self.require(self._instances_file, 'data_root and dataset', 'Download it')
        self.require(root / IMAGE_FOLDER, 'data_root and dataset', 'Put or link the COCO 2014 training images there')
        excluded = exclusion_source(self.exclude_image_ids)
        return IndexSource(files=[self._refs_file, self._instances_file, *excluded.files],
                           arguments=dict(split=self.split) | excluded.arguments)

    def build_index(self) -> dict[str, Table]:
        refs = load_refs(self._refs_file)
        splits = sorted({ref['split'] for ref in refs})
        if self.split not in splits:
            raise ValueError(f'{self._refs_file} has no split {self.split!r}, only {", ".join(splits)}')
        excluded = excluded_ids(self.exclude_image_ids)
        refs = [ref for ref in refs if ref['split'] == self.split and ref['image_id'] not in excluded]
        return self._tables(sorted(refs, key=lambda ref: ref['ref_id']))

    def _tables(self, refs: list[dict]) -> dict[str, Table]:
        instances = load_instances(self._instances_file)
        images = {image['id']: image for image in instances['images']}
        annotations = {annotation['id']: annotation for annotation in instances['annotations']}
        has_kind = any('kind' in sentence for ref in refs for sentence in ref['sentences'])
        builder = TableBuilder(image=int, object=int, ref=int, sentence=int, outline=int, caption=str,
                               box_width=float, box_height=float, area=float, image_width=float, image_height=float,
                               **(dict(kind=str) if has_kind else {}))
        outlines = TableBuilder(segmentation=str, file=str)
        for ref in refs:
            if self.full(builder):
                break
            annotation, image = annotations.get(ref['ann_id']), images.get(ref['image_id'])
            problem = _problem(annotation, image)
            if problem:
                self.quarantine.note(f'{self.dataset}_{ref["ref_id"]}', self._instances_file,
                                     f'annotation {ref["ann_id"]} or image {ref["image_id"]} {problem}')
                continue
            outlines.append(segmentation=json.dumps(annotation['segmentation']), file=image['file_name'])
            _, _, box_width, box_height = numbers_or_nan(annotation.get('bbox'), 4)
            area, image_width, image_height = numbers_or_nan(
                [annotation.get('area'), image.get('width'), image.get('height')], 3)
            for sentence in ref['sentences']:
                if not is_text(sentence['sent']):
                    sample = _sample_id(image['file_name'], ref['ref_id'], sentence['sent_id'])
                    self.quarantine.note(sample, self._refs_file, 'the sentence is empty or no valid text')
                    continue
                kind = dict(kind=str(sentence.get('kind', ''))) if has_kind else {}
                builder.append(image=image['id'], object=annotation['id'], ref=ref['ref_id'],
                               sentence=sentence['sent_id'], outline=len(outlines) - 1,
                               caption=sentence['sent'].strip().lower(), box_width=box_width, box_height=box_height,
                               area=area, image_width=image_width, image_height=image_height, **kind)
        return dict(samples=builder.build(), outlines=outlines.build())

    def sample_id(self, row: int) -> str:
        file = self.tables['outlines']['file'][self.index['outline'][row]]
        return _sample_id(file, self.index['ref'][row], self.index['sentence'][row])

    def path(self, row: int) -> Path:
        file = self.tables['outlines']['file'][self.index['outline'][row]]
        return self.data_root / self.dataset / IMAGE_FOLDER / file

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        segmentation = json.loads(self.tables['outlines']['segmentation'][self.index['outline'][row]])
        size = [self.index[side][row] for side in ('image_height', 'image_width')]
        return decode_segmentation(segmentation, height, width, self._instances_file, stated=size)

    def words(self, row: int) -> dict[str, str | None]:
        return super().words(row) | (dict(kind=self.index['kind'][row]) if 'kind' in self.index else {})

    @property
    def _refs_file(self) -> Path:
        return self.data_root / self.dataset / f'refs({self.split_by}).p'

    @property
    def _instances_file(self) -> Path:
        return self.data_root / self.dataset / 'instances.json'

    def _partitions(self, root: Path) -> str:
        found = [file.name[len('refs('):-len(').p')] for file in refs_files(root)]
        return ', '.join(map(repr, found)) or "those whose file you download ('unc', 'umd' or 'google')"


def _problem(annotation: dict | None, image: dict | None) -> str | None:
    """What is wrong with an entry of ``instances.json``, if something is."""
    if annotation is None or image is None:
        return 'is not listed'
    name = image.get('file_name')
    if not is_text(name) or name != Path(name).name:
        return 'has no plain file_name'
    return None if isinstance(annotation.get('segmentation'), (list, dict)) else 'has no segmentation'


def _sample_id(file_name: str, ref_id: int, sentence_id: int) -> str:
    return f'{Path(file_name).stem}_{ref_id}_{sentence_id}'
