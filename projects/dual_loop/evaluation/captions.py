"""Short descriptions of regions, against what people said about them (RefCOCOg)."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from dual_loop.datasets import RefCOCODataset
from dual_loop.datasets.index import Table
from llava_sam2.portable import prompts

from .attribute_accuracy import attribute_figures, right_attributes
from .batches import answer_in_batches
from .caption_scores import JavaError, check_scores, score_captions
from .loading import Loaded
from .processes import Processes
from .referring import ReferringBatches, Sentences, describe_dataset
from .results import assemble_results
from .scene_truth import SceneTruth


class ReferredObjects:
    """The objects of a split in the order of its sentences: one row per object, in place of one per sentence.

    What :class:`ReferringBatches` asks of a data set; ``caption`` is the list of all sentences about the object.

    Args:
        sentences: with one row per sentence.
    """

    def __init__(self, sentences: RefCOCODataset):
        self._sentences = sentences
        refs = sentences.index['ref']
        order = np.argsort(refs, kind='stable')
        first = np.flatnonzero(np.diff(refs[order], prepend=-1))  # of each object, in ``order``
        self._rows = np.split(order, first[1:])
        self._truth = SceneTruth(sentences)
        self.index = Table.of(image=sentences.index['image'][order[first]])
        self.dataset, self.split, self.data_root = sentences.dataset, sentences.split, sentences.data_root

    def sample_id(self, row: int) -> str:
        return f'{self.path(row).stem}_{self._sentences.index["ref"][self._rows[row][0]]}'

    def path(self, row: int) -> Path:
        return self._sentences.path(self._rows[row][0])

    def read_image(self, row: int) -> torch.Tensor:
        return self._sentences.read_image(self._rows[row][0])

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        return self._sentences.read_mask(self._rows[row][0], height, width)

    def truth(self, row: int) -> Mapping[str, Any] | None:
        """What is known of the object, in demo data."""
        return self._truth[self._rows[row][0]]

    def words(self, row: int) -> dict[str, list[str]]:
        return dict(caption=[self._sentences.words(sentence)['caption'] for sentence in self._rows[row]])


def evaluate_captions(
    loaded: Loaded,
    dataset: RefCOCODataset,
    question: str = prompts.SHORT_CAPTION_QUESTION,
    batch_size: int = 16,
    max_new_tokens: int = 256,
    max_images: int | None = None,
    max_texts_per_image: int | None = None,
    num_workers: int = 2,
    processes: Processes | None = None,
) -> dict | None:
    """One description of every object of a split, given its mask; all sentences about the object are its references.

    Args:
        loaded: the model, on the device of the processes.
        dataset: of the split; its sizes and repeats do not count.
        question: the words after the list of regions, in which the object is called region1.
        batch_size: objects at a time.
        max_new_tokens: of a description.
        max_images: describe the objects of the first so many images only.
        max_texts_per_image: describe the first so many objects of each image only.
        num_workers: of each process's loader.
        processes: to share the batches with; default is to be alone.

    Returns:
        Results in the schema of ``results``, the same for any number of processes but for ``timing``; None on all
        ranks but the first.

    Raises:
        MissingScores: pycocoevalcap is not installed.
        ValueError, FileNotFoundError: see :class:`ReferringBatches`.
    """
    processes = processes or Processes()
    tokenizer = usable_tokenizer() if processes.rank == 0 else None
    predictor = loaded.predictor()
    objects = ReferredObjects(dataset)
    batches = ReferringBatches(objects, predictor.prepare, batch_size, max_images, max_texts_per_image)

    def answer(batch: Sentences) -> list[dict[str, Any]]:
        described = predictor.caption_regions(batch.pictures, batch.targets, max_new_tokens, question)
        return [dict(image=image, sample_id=sample_id, text=each.text, references=references, ended=each.ended)
                for image, *of_image in zip(batch.images, batch.sample_ids, batch.texts, described, strict=True)
                for sample_id, references, each in zip(*of_image, strict=True)]

    started = time.perf_counter()
    samples = answer_in_batches(batches, answer, len(batches.rows), processes, num_workers, dataset.split)
    if samples is None:
        return None
    timing = processes.timing(time.perf_counter() - started, len(samples))
    metrics, tokenizer = add_scores(samples, tokenizer)
    return assemble_results(
        'captions', loaded.description, samples, metrics | length_metrics(samples) | add_accuracy(samples, objects),
        dict(images=batches.num_images, left_out=dataset.quarantine.count), ['pycocoevalcap'], protocol='generate',
        dataset=describe_dataset(dataset, max_images, max_texts_per_image), tokenizer=tokenizer, prompt=question,
        batch_size=batch_size, max_new_tokens=max_new_tokens, timing=timing,
    )


def usable_tokenizer() -> str:
    """The tokenizer that this machine has the means for; says what is missing."""
    try:
        check_scores()
    except JavaError as error:
        _warn(f'{error}. METEOR is left out, and words are told apart by a plain tokenizer, so CIDEr and BLEU differ a '
              'little from published ones. For the same as published, install a Java runtime (such as the package '
              'default-jre-headless) and start again')
        return 'plain'
    return 'ptb'


def add_scores(samples: Sequence[dict[str, Any]], tokenizer: str) -> tuple[dict[str, float], str]:
    """Score the texts of all samples and write each one's scores into it.

    Returns:
        Metrics of all, and the tokenizer that they are for: 'plain' if Java fails only now, when the captions must
        not be lost.
    """
    texts, references = ([sample[key] for sample in samples] for key in ('text', 'references'))
    try:
        scores = score_captions(texts, references, tokenizer)
    except JavaError as error:
        _warn(f'{error}. METEOR is left out, and words are told apart by a plain tokenizer')
        scores = score_captions(texts, references, 'plain')
    for sample, of_sample in zip(samples, scores.samples, strict=True):
        sample |= of_sample
    return scores.metrics, scores.tokenizer


def add_accuracy(samples: Sequence[dict[str, Any]], objects: ReferredObjects) -> dict[str, float]:
    """Of demo data :func:`attribute_figures`; each sample gets its ``accuracy_<attribute>``, True or False."""
    rows = {objects.sample_id(row): row for row in range(len(objects.index))}
    known = [(sample, truth) for sample in samples if (truth := objects.truth(rows[sample['sample_id']]))]
    for sample, truth in known:
        sample |= {f'accuracy_{name}': right for name, right in right_attributes(sample['text'], truth).items()}
    return attribute_figures([sample['text'] for sample, _ in known], [truth for _, truth in known])


def length_metrics(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``words`` of a text and of a reference, and shares of texts that are empty or ran into ``max_new_tokens``."""
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    return dict(
        words=mean([len(sample['text'].split()) for sample in samples]),
        reference_words=mean([len(text.split()) for sample in samples for text in sample['references']]),
        empty=mean([not sample['text'] for sample in samples]),
        hit_max_new_tokens=mean([not sample['ended'] for sample in samples]),
    )


def _warn(message: str) -> None:
    print_log(f'captions: {message}.', logger='current', level=logging.WARNING)
