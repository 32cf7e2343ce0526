"""RefCOCO, RefCOCO+ and RefCOCOg: short human sentences that name one object of a COCO picture."""

import json
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS

from .base import GroundedDataset
from .exclusion import REMEDY, Spec, coco_file_number, excluded_ids
from .index import Table, TableBuilder
from .index_store import IndexSource
from .instances import Instances
from .lengths import numbers_or_nan
from .masks import decode_segmentation
from .plain_pickle import load_plain_pickle
from .quarantine import BadSample
from .refs import VARIANTS, has_fields, held_out_image_ids, load_instances, read_refs, refs_files
from .texts import is_text, printable

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
            default 'train' leaves out what any variant and partition below ``data_root`` holds out (if that is nothing,
            pictures of COCO are refused), and other splits nothing; ``()`` leaves out nothing.
        **common: see ``GroundedDataset``.

    Raises:
        ValueError: a split that the variant or partition does not have.
    """

    licence = 'RefCOCO, RefCOCO+, RefCOCOg on COCO 2014: annotations CC BY 4.0, pictures under their Flickr terms'
    obtain = '2014 training images: https://cocodataset.org/#download; annotations: https://github.com/lichengunc/refer'
    index_code = (read_refs, load_plain_pickle, Instances)
    ids_are_unique = True

    def __init__(self, data_root: str | Path, dataset: str = 'refcoco', split: str = 'train', split_by: str = 'unc',
                 exclude_image_ids: Spec | None = None, **common):
        if dataset not in VARIANTS:
            raise ValueError(f'dataset must be one of {", ".join(VARIANTS)}, got {dataset!r}')
        if split == 'test' and dataset != 'refcocog':
            raise ValueError(f"{dataset} has no split 'test': use 'testA' (people) or 'testB' (other objects)")
        if split == 'test' and split_by == 'google':
            raise ValueError("the partition 'google' of refcocog has no split 'test', and its val shows images of its "
                             "train: use split_by='umd', which published figures are for")
        self._leaves_out_by_default = exclude_image_ids is None and split == 'train'
        if exclude_image_ids is None:
            exclude_image_ids = dict(type=held_out_image_ids, data_root=data_root) if split == 'train' else ()
        self.dataset = dataset
        self.split = split
        self.split_by = split_by
        super().__init__(data_root, exclude_image_ids=exclude_image_ids, **common)

    def default_name(self) -> str:
        return self.dataset

    def index_source(self) -> IndexSource:
        root = self.require(self.data_root / self.dataset, 'data_root and dataset', 'Download the annotations there')
        self.require(self._refs_file, 'data_root, dataset and split_by',
                     f'Set split_by to one of {self._partitions(root)}')
        self.require(self._instances_file, 'data_root and dataset', 'Download it')
        self.require(root / IMAGE_FOLDER, 'data_root and dataset', 'Put or link the COCO 2014 training images there')
        return IndexSource(files=[self._refs_file, self._instances_file], arguments=dict(split=self.split))

    def build_index(self) -> dict[str, Table]:
        refs, bad = read_refs(self._refs_file)
        splits = sorted({ref['split'] for ref in refs})
        if self.split not in splits:
            raise ValueError(f'{self._refs_file} has no split {self.split!r}, only {", ".join(splits)}')
        for each in bad:
            if each.split in (None, self.split):
                self.quarantine.note(f'{self.dataset} entry {each.position}', self._refs_file, each.reason)
        excluded = excluded_ids(self.exclude_image_ids)
        refs = [ref for ref in refs if ref['split'] == self.split and ref['image_id'] not in excluded]
        return self._tables(sorted(refs, key=lambda ref: ref['ref_id']), refuse_coco=self._leaves_out_by_default
                            and not excluded)

    def _tables(self, refs: list[dict], refuse_coco: bool) -> dict[str, Table]:
        instances = Instances(load_instances(self._instances_file))
        has_kind = any(isinstance(each, dict) and 'kind' in each for ref in refs for each in ref['sentences'])
        builder = TableBuilder(image=int, object=int, ref=int, sentence=int, outline=int, caption=str,
                               box_width=float, box_height=float, area=float, image_width=float, image_height=float,
                               **(dict(kind=str) if has_kind else {}))
        outlines = TableBuilder(segmentation=str, file=str)
        named: set[int] = set()
        for ref in refs:
            if self.full(builder):
                break
            name = f'{self.dataset}_{ref["ref_id"]}'
            if ref['ref_id'] in named:
                self.quarantine.note(f'{name} again', self._refs_file, 'a reference before it has that ref_id')
                continue
            named.add(ref['ref_id'])
            try:
                annotation, image = instances.join(ref['ann_id'], ref['image_id'])
            except BadSample as error:
                self.quarantine.note(name, self._instances_file, error.reason)
                continue
            if refuse_coco and coco_file_number(image['file_name']) is not None:
                raise ValueError(f'{self._refs_file} holds out nothing and shows pictures of COCO '
                                 f'({image["file_name"]}), of which RefCOCO holds some out: {REMEDY}')
            outlines.append(segmentation=json.dumps(annotation['segmentation']), file=image['file_name'])
            _, _, box_width, box_height = numbers_or_nan(annotation.get('bbox'), 4)
            area, image_width, image_height = numbers_or_nan(
                [annotation.get('area'), image.get('width'), image.get('height')], 3)
            said: set[int] = set()
            for place, sentence in enumerate(ref['sentences']):
                if not (has_fields(sentence, dict(sent_id=int)) and is_text(sentence.get('sent'))):
                    sample = _sample_id(image['file_name'], ref['ref_id'], f'sentence{place}')
                    self.quarantine.note(sample, self._refs_file, 'the sentence is empty or no valid text, or has no '
                                                                  'usable sent_id')
                    continue
                if sentence['sent_id'] in said:
                    self.quarantine.note(f'{_sample_id(image["file_name"], ref["ref_id"], sentence["sent_id"])} again',
                                         self._refs_file, 'a sentence before it has that sent_id')
                    continue
                said.add(sentence['sent_id'])
                kind = dict(kind=printable(sentence.get('kind', ''))) if has_kind else {}
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

    def picture_names(self, row: int) -> set[int | str]:
        return {self.path(row).stem, int(self.index['image'][row])}

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


def _sample_id(file_name: str, ref_id: int, sentence_id: int | str) -> str:
    return f'{Path(file_name).stem}_{ref_id}_{sentence_id}'
