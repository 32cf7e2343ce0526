"""RefCOCO, RefCOCO+ and RefCOCOg: short human sentences that name one object of a COCO picture."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS

from .base import GroundedDataset, build
from .images import read_image
from .index import Table, TableBuilder
from .masks import decode_segmentation
from .refs import VARIANTS, load_instances, load_refs

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
        exclude_image_ids: COCO ids of images to leave out, or ``dict(type=held_out_image_ids, data_root=...)``.
        **common: see ``GroundedDataset``.

    Raises:
        ValueError: a split that the variant does not have.
    """

    licence = 'RefCOCO, RefCOCO+, RefCOCOg on COCO 2014: annotations CC BY 4.0, pictures under their Flickr terms'

    def __init__(self, data_root: str | Path, dataset: str = 'refcoco', split: str = 'train', split_by: str = 'unc',
                 exclude_image_ids: Iterable[int] | Callable | dict = (), **common):
        if dataset not in VARIANTS:
            raise ValueError(f'dataset must be one of {", ".join(VARIANTS)}, got {dataset!r}')
        if split == 'test' and dataset != 'refcocog':
            raise ValueError(f"{dataset} has no split 'test': use 'testA' (people) or 'testB' (other objects)")
        self.dataset = dataset
        self.split = split
        self.split_by = split_by
        self.exclude_image_ids = exclude_image_ids
        super().__init__(data_root, **common)

    def default_name(self) -> str:
        return self.dataset

    def build_index(self) -> Table:
        root = self.require(self.data_root / self.dataset, 'data_root and dataset', 'Download the annotations there')
        refs_file = self.require(root / f'refs({self.split_by}).p', 'data_root, dataset and split_by',
                                 f'Set split_by to one of {self._partitions(root)}')
        instances_file = self.require(root / 'instances.json', 'data_root and dataset', 'Download it')
        self.require(root / IMAGE_FOLDER, 'data_root and dataset', 'Put or link the COCO 2014 training images there')

        refs = load_refs(refs_file)
        splits = sorted({ref['split'] for ref in refs})
        if self.split not in splits:
            raise ValueError(f'{refs_file} has no split {self.split!r}, only {", ".join(splits)}')
        excluded = excluded_ids(self.exclude_image_ids)
        refs = [ref for ref in refs if ref['split'] == self.split and ref['image_id'] not in excluded]
        return self._table(sorted(refs, key=lambda ref: ref['ref_id']), instances_file)

    def _table(self, refs: list[dict], instances_file: Path) -> Table:
        instances = load_instances(instances_file)
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
            if annotation is None or image is None:
                self.quarantine.note(f'{self.dataset}_{ref["ref_id"]}', instances_file,
                                     f'annotation {ref["ann_id"]} or image {ref["image_id"]} is not listed')
                continue
            outlines.append(segmentation=json.dumps(annotation['segmentation']), file=image['file_name'])
            box_width, box_height = annotation.get('bbox', [math.nan] * 4)[2:]
            for sentence in ref['sentences']:
                sample = _sample_id(image['file_name'], ref['ref_id'], sentence['sent_id'])
                caption = sentence['sent'].strip().lower()
                if not caption:
                    self.quarantine.note(sample, instances_file, 'the sentence is empty')
                    continue
                kind = dict(kind=sentence.get('kind', '')) if has_kind else {}
                builder.append(image=image['id'], object=annotation['id'], ref=ref['ref_id'],
                               sentence=sentence['sent_id'], outline=len(outlines) - 1, caption=caption,
                               box_width=box_width, box_height=box_height, area=annotation.get('area', math.nan),
                               image_width=image['width'], image_height=image['height'], **kind)
        self._outlines = outlines.build()
        return builder.build()

    def sample_id(self, row: int) -> str:
        file = self._outlines['file'][self.index['outline'][row]]
        return _sample_id(file, self.index['ref'][row], self.index['sentence'][row])

    def path(self, row: int) -> Path:
        return self.data_root / self.dataset / IMAGE_FOLDER / self._outlines['file'][self.index['outline'][row]]

    def read_image(self, row: int) -> torch.Tensor:
        return read_image(self.path(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        segmentation = json.loads(self._outlines['segmentation'][self.index['outline'][row]])
        return decode_segmentation(segmentation, height, width, self.data_root / self.dataset / 'instances.json')

    def describe(self, row: int) -> dict[str, str | None]:
        return {key: self.index[key][row] for key in ('caption', 'kind') if key in self.index}

    def _partitions(self, root: Path) -> str:
        found = [file.name[len('refs('):-len(').p')] for file in sorted(root.glob('refs(*).p'))]
        return ', '.join(map(repr, found)) or "those whose file you download ('unc', 'umd' or 'google')"


def excluded_ids(spec: Iterable[int] | Callable | dict) -> frozenset[int]:
    """The image ids of an ``exclude_image_ids`` argument: given, or made by a callable or ``dict(type=...)``."""
    return frozenset(build(spec) if callable(spec) or isinstance(spec, dict) else spec)


def _sample_id(file_name: str, ref_id: int, sentence_id: int) -> str:
    return f'{Path(file_name).stem}_{ref_id}_{sentence_id}'
