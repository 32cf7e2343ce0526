"""Referring segmentation as published numbers are made: every sentence, masks at the size of the picture."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from dual_loop.datasets import BadSample, RefCOCODataset
from llava_sam2.portable import prompts

from .attribute_accuracy import has_new_name
from .batches import answer_in_batches
from .loading import Loaded
from .predictor import Picture, Prediction
from .processes import Processes
from .results import assemble_results
from .scores import MaskScores, mask_metrics, part_metrics


@dataclass
class Sentences:
    """Sentences about some pictures, those of a picture together.

    Attributes:
        images: file names of the pictures.
        pictures: of each image.
        sample_ids, texts: of each image, its sentences.
        kinds: of each image, the kinds of its sentences; None where the data set tells none apart.
        targets: of each image, (R, height, width) bool, a mask for each sentence at the original size.
    """

    images: list[str]
    pictures: list[Picture]
    sample_ids: list[list[str]]
    texts: list[list[str]]
    kinds: list[list[str | None]]
    targets: list[torch.Tensor]


class ReferringBatches(Dataset):
    """Batches of consecutive sentences, images in order of their numbers, the sentences of an image together.

    Item ``i`` is a :class:`Sentences`, or a ``ValueError`` that names the file that cannot be read.

    Args:
        dataset: a RefCOCODataset, or what has its index and methods; an empty one is refused.
        prepare: makes a picture of an image (3, H, W) uint8; runs in the workers of a loader.
        batch_size: sentences at a time.
        max_images: take the first so many images only.
        max_texts_per_image: take the first so many sentences of each image only.

    Raises:
        ValueError: there are no sentences.
        FileNotFoundError: an image is missing. A figure over the other ones would not be the figure.
    """

    def __init__(self, dataset: Any, prepare: Callable[[torch.Tensor], Picture], batch_size: int,
                 max_images: int | None = None, max_texts_per_image: int | None = None):
        if not len(dataset.index):
            raise ValueError(f'{dataset.dataset}, split {dataset.split!r}, has no sentences below {dataset.data_root}')
        self.dataset, self.prepare, self.batch_size = dataset, prepare, batch_size
        images = dataset.index['image']
        order = np.argsort(images, kind='stable')
        of_image = np.split(order, np.flatnonzero(np.diff(images[order])) + 1)[:max_images]
        self.rows = np.concatenate([rows[:max_texts_per_image] for rows in of_image])
        self.num_images = len(of_image)
        for rows in of_image:
            if not (path := dataset.path(rows[0])).exists():
                raise FileNotFoundError(f'{path} does not exist: put or link the COCO 2014 training images there. '
                                        'An evaluation without some of its images would give another number')

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: int) -> Sentences | ValueError:
        rows = self.rows[number * self.batch_size : (number + 1) * self.batch_size].tolist()
        batch = Sentences([], [], [], [], [], [])
        for path, group in groupby(rows, key=self.dataset.path):
            of_image = list(group)
            try:
                image = self.dataset.read_image(of_image[0])
                masks = [self.dataset.read_mask(row, *image.shape[1:]) for row in of_image]
            except BadSample as error:
                return ValueError(f'{error.path or path}: {error.reason} (needed for {path.name}); get the file anew. '
                                  'An evaluation without some of its images would give another number')
            batch.images.append(path.name)
            batch.pictures.append(self.prepare(image))
            batch.sample_ids.append([self.dataset.sample_id(row) for row in of_image])
            words = [self.dataset.words(row) for row in of_image]
            batch.texts.append([each['caption'] for each in words])
            batch.kinds.append([each.get('kind') for each in words])
            batch.targets.append(torch.from_numpy(np.stack(masks)))
        return batch


def evaluate_referring(
    loaded: Loaded,
    dataset: RefCOCODataset,
    protocol: str = 'generate',
    batch_size: int = 16,
    max_new_tokens: int = 256,
    max_images: int | None = None,
    max_texts_per_image: int | None = None,
    num_workers: int = 2,
    processes: Processes | None = None,
) -> dict | None:
    """Masks for every sentence of a split; a sentence that is answered without ``[SEG]`` has an empty one.

    Args:
        loaded: the model, on the device of the processes.
        dataset: of the split; its sizes and repeats do not count.
        protocol: see ``predictor.PROTOCOLS``.
        batch_size: sentences at a time.
        max_new_tokens: of an answer.
        max_images, max_texts_per_image: see :class:`ReferringBatches`.
        num_workers: of each process's loader.
        processes: to share the batches with; default is to be alone.

    Returns:
        Results in the schema of ``results``, the same for any number of processes but for ``timing``; None on all
        ranks but the first.

    Raises:
        ValueError, FileNotFoundError: see :class:`ReferringBatches`.
    """
    processes = processes or Processes()
    predictor = loaded.predictor()
    batches = ReferringBatches(dataset, predictor.prepare, batch_size, max_images, max_texts_per_image)

    def answer(batch: Sentences) -> list[dict]:
        return score_sentences(batch, predictor.segment(batch.pictures, batch.texts, max_new_tokens, protocol))

    started = time.perf_counter()
    samples = answer_in_batches(batches, answer, len(batches.rows), processes, num_workers, dataset.split)
    if samples is None:
        return None
    return assemble_results(
        'referring', loaded.description, samples, mask_metrics(samples) | part_metrics(samples),
        dict(images=batches.num_images, left_out=dataset.quarantine.count), protocol=protocol,
        dataset=describe_dataset(dataset, max_images, max_texts_per_image),
        prompt=prompts.REFERRING_QUESTION.format(class_name='{}'), batch_size=batch_size,
        max_new_tokens=max_new_tokens, timing=processes.timing(time.perf_counter() - started, len(samples)),
    )


def score_sentences(batch: Sentences, predictions: Sequence[Sequence[Prediction]]) -> list[dict]:
    """The samples of a batch as they stand in the results."""
    samples = []
    for image, ids, texts, kinds, targets, said in zip(batch.images, batch.sample_ids, batch.texts, batch.kinds,
                                                       batch.targets, predictions):
        scores = MaskScores()
        scores.add(torch.stack([each.mask for each in said]), targets)
        samples += [
            dict(image=image, sample_id=sample_id, text=text, intersection=intersection, union=union,
                 seg=each.has_seg, answer=each.text, **part_of(text, kind))
            for sample_id, text, kind, intersection, union, each in zip(
                ids, texts, kinds, scores.intersections, scores.unions, said)
        ]
    return samples


def part_of(text: str, kind: str | None) -> dict[str, str]:
    """``kind`` and ``names`` of a sentence of demo data; nothing of other data."""
    return dict(kind=kind, names='new' if has_new_name(text) else 'old') if kind else {}


def describe_dataset(dataset: RefCOCODataset, max_images: int | None, max_texts_per_image: int | None) -> dict:
    """What results say about the data."""
    return dict(name=dataset.dataset, split=dataset.split, split_by=dataset.split_by,
                data_root_name='/'.join(dataset.data_root.parts[-2:]), digest=dataset.index_digest,
                max_images=max_images, max_texts_per_image=max_texts_per_image)
