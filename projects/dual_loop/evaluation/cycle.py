"""Cycle consistency: a model describes a masked object and finds it again from the description.

Each object is looked for by the words of several conditions, in the picture in which it was described and, where the
data has frame pairs, in the other frame:

- ``true``: the words of the data set, where it has some;
- ``generated``: the model's own description;
- ``shuffled``: its description of another object, of another picture if there is one;
- ``empty``: no words.

Masks that are as good with shuffled words as with the generated ones mean that the decoder ignores language; as good
with none, that it takes what is salient.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch

from dual_loop.datasets import GroundedDataset
from dual_loop.models.caption_figures import caption_figures
from llava_sam2.portable import prompts
from llava_sam2.portable.vocabulary import Vocabulary

from .batches import answer_in_batches
from .cycle_probe import Probe, ProbeBatch
from .loading import Loaded
from .predictor import Predictor
from .processes import Processes
from .results import assemble_results
from .scores import MaskScores, mask_metrics

CONDITIONS = ('true', 'generated', 'shuffled', 'empty')
FRAMES = ('same', 'paired')
METRICS = ('giou', 'ciou', 'no_seg_rate')


def describe(predictor: Predictor, batch: ProbeBatch, max_new_tokens: int) -> list[dict[str, Any]]:
    """``place``, ``text``, ``ended`` and ``problem`` of each object of a batch."""
    pictures = [each.pictures[0] for each in batch.objects]
    said = predictor.caption_regions(pictures, [each.targets[:1] for each in batch.objects], max_new_tokens)
    captions = [dict(place=each.place, text=caption.text, ended=caption.ended, problem='')
                for each, (caption, ) in zip(batch.objects, said)]
    captions += [dict(place=place, text='', ended=True, problem=problem) for place, problem in batch.problems.items()]
    return sorted(captions, key=lambda caption: caption['place'])


def find(predictor: Predictor, batch: ProbeBatch, texts: Mapping[int, Mapping[str, str]], max_new_tokens: int,
         protocol: str = 'generate') -> list[dict[str, Any]]:
    """Samples of a batch without their names: place, condition, frame, text, intersection, union, seg."""
    asked = [(each.place, frame, picture, target) for each in batch.objects if each.place in texts
             for frame, picture, target in zip(FRAMES, each.pictures, each.targets)]
    questions = [list(texts[place].values()) for place, *_ in asked]
    found = predictor.segment([picture for *_, picture, _ in asked], questions, max_new_tokens, protocol)
    samples = []
    for (place, frame, _, target), predictions in zip(asked, found):
        scores = MaskScores()
        scores.add(torch.stack([each.mask for each in predictions]), target)
        for (condition, text), intersection, union, each in zip(texts[place].items(), scores.intersections,
                                                                scores.unions, predictions):
            samples.append(dict(place=place, condition=condition, frame=frame, text=text, intersection=intersection,
                                union=union, seg=each.has_seg))
    return samples


def cycle_metrics(samples: Sequence[Mapping]) -> dict[str, float]:
    """``giou``, ``ciou`` and ``no_seg_rate``, each as ``<metric>/<condition>/<frame>``."""
    metrics: dict[str, float] = {}
    for frame in FRAMES:
        for condition in CONDITIONS:
            counted = [each for each in samples if (each['condition'], each['frame']) == (condition, frame)]
            if counted:
                of_all = mask_metrics(counted)
                metrics |= {f'{name}/{condition}/{frame}': of_all[name] for name in METRICS}
    return metrics


def caption_metrics(captions: Sequence[Mapping], vocabulary: Vocabulary) -> dict[str, float]:
    """Whether the descriptions are language: :func:`caption_figures` of their tokens, ``duplicates``, the share of
    objects whose description another one has too, and ``empty``, the share without a word. All but the last depend on
    the number of objects."""
    captions = [caption for caption in captions if not caption['problem']]
    texts = [caption['text'] for caption in captions]
    times = Counter(texts)
    figures = caption_figures([vocabulary.encode(text) for text in texts], [each['ended'] for each in captions])
    return figures | dict(duplicates=sum(times[text] > 1 for text in texts) / len(texts),
                          empty=sum(not text for text in texts) / len(texts))


def evaluate_cycle(
    loaded: Loaded,
    sources: Mapping[str, GroundedDataset],
    name: str,
    protocol: str = 'generate',
    batch_size: int = 16,
    max_new_tokens: int = 256,
    max_samples: int | None = None,
    num_workers: int = 2,
    processes: Processes | None = None,
) -> dict | None:
    """Describe the objects of some data sets and find them again.

    Args:
        loaded: the model, on the device of the processes.
        sources: name -> data set; its sizes and repeats do not count.
        name: of all of them together.
        protocol: of finding, see ``predictor.PROTOCOLS``.
        batch_size: objects at a time.
        max_new_tokens: of a description, and of an answer with a mask.
        max_samples: objects of each source at most.
        num_workers: of each process's loader.
        processes: to share the batches with; default is to be alone.

    Returns:
        Results in the schema of ``results``, the same for any number of processes but for ``timing``; None on all
        ranks but the first. ``counts['left_out']`` objects cannot be read.

    Raises:
        ValueError: see :class:`Probe`.
    """
    processes = processes or Processes()
    predictor = loaded.predictor()
    probe = Probe(sources, predictor.prepare, batch_size, max_samples)
    texts: dict[int, dict[str, str]] = {}

    def answer(batch: ProbeBatch) -> list[dict]:
        if not batch.finds:
            return describe(predictor, batch, max_new_tokens)
        if not texts:  # all processes describe their share before they find anything, so none waits for itself
            captions = [each for part in processes.collect(probe.num_batches) for each in part]
            texts.update(probe.texts(captions))
        return find(predictor, batch, texts, max_new_tokens, protocol)

    started = time.perf_counter()
    answers = answer_in_batches(probe, answer, None, processes, num_workers, name)
    if answers is None:
        return None
    captions = [each for each in answers if 'ended' in each]
    samples = [probe.identity(each.pop('place')) | each for each in answers if 'ended' not in each]
    left_out = [each['problem'] for each in captions if each['problem']]
    digests = [f'{source}:{dataset.index_digest}' for source, dataset in sources.items()]
    return assemble_results(
        'cycle', loaded.description, samples,
        cycle_metrics(samples) | caption_metrics(captions, loaded.vocabulary) | probe.attribute_figures(captions),
        dict(images=len({each['image'] for each in samples}), objects=len(captions) - len(left_out),
             left_out=len(left_out)), protocol=protocol,
        dataset=dict(name=name, split=None, split_by=None, data_root_name=None, max_samples=max_samples,
                     digest=sha256('\n'.join(digests).encode()).hexdigest(), sources=list(sources), left_out=left_out),
        prompt=f'{prompts.CAPTION_QUESTION} {prompts.REFERRING_QUESTION.format(class_name="{}").strip()}',
        batch_size=batch_size, max_new_tokens=max_new_tokens,
        timing=processes.timing(time.perf_counter() - started, len(samples)),
    )
