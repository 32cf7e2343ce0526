"""The objects of a cycle: which ones, their words, and in what order descriptions are exchanged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from dual_loop.datasets import BadSample, GroundedDataset
from llava_sam2.randomness import seed_for

from .attribute_accuracy import attribute_figures
from .predictor import Picture
from .scene_truth import SceneTruth


@dataclass
class ProbeObject:
    """An object as the model sees it.

    Attributes:
        place: its number in the probe.
        pictures: the frame to describe it in, and the other one of a pair.
        targets: (height, width) bool, its mask in each of them.
    """

    place: int
    pictures: list[Picture]
    targets: list[torch.Tensor]


@dataclass
class ProbeBatch:
    """Objects that are asked about together.

    Attributes:
        finds: whether to find the objects or to describe them.
        objects: those that can be read.
        problems: place -> what is wrong, of the others.
    """

    finds: bool
    objects: list[ProbeObject]
    problems: dict[int, str]


class Probe(Dataset):
    """The objects of some data sets, in batches; twice, first to describe and then to find them.

    Item ``i`` is a :class:`ProbeBatch`.

    Args:
        sources: name -> data set.
        prepare: makes a picture of an image (3, H, W) uint8; runs in the workers of a loader.
        batch_size: objects at a time.
        max_samples: objects of each source at most, spread evenly over it.

    Raises:
        ValueError: fewer than two objects, so that descriptions cannot be exchanged.
    """

    def __init__(self, sources: Mapping[str, GroundedDataset], prepare: Callable[[torch.Tensor], Picture],
                 batch_size: int, max_samples: int | None = None):
        self.sources, self.prepare, self.batch_size = sources, prepare, batch_size
        self.places = [(source, row) for source, dataset in sources.items()
                       for row in object_rows(dataset, max_samples)]
        if len(self.places) < 2:
            raise ValueError(f'{", ".join(sources) or "no source"}: {len(self.places)} objects, but descriptions are '
                             'exchanged between at least two')
        self.num_batches = -(-len(self.places) // batch_size)
        self._truths = {source: SceneTruth(dataset) for source, dataset in sources.items()}

    def __len__(self) -> int:
        return 2 * self.num_batches

    def __getitem__(self, number: int) -> ProbeBatch:
        finds, number = divmod(number, self.num_batches)
        batch = ProbeBatch(bool(finds), [], {})
        first = number * self.batch_size
        for place, (source, row) in enumerate(self.places[first : first + self.batch_size], first):
            dataset = self.sources[source]
            try:
                frames = list(dataset.frames(row))
                if not all(mask.any() for _, mask in frames):
                    raise BadSample('the mask is empty')
            except BadSample as error:
                sample = f'{source}, {dataset.sample_id(row)}'
                batch.problems[place] = f'{sample}: {error.reason} ({error.path or dataset.path(row)})'
                continue
            frames = frames if finds else frames[:1]
            batch.objects.append(ProbeObject(place, [self.prepare(image) for image, _ in frames],
                                             [torch.from_numpy(mask) for _, mask in frames]))
        return batch

    def caption(self, place: int) -> str | None:
        """The words of the data set."""
        source, row = self.places[place]
        return self.sources[source].words(row)['caption']

    def identity(self, place: int) -> dict[str, str]:
        """How results name an object: ``image``, ``sample_id`` and ``source``, the same wherever the data lie."""
        source, row = self.places[place]
        dataset = self.sources[source]
        image = dataset.identity(row)['image_key'].removeprefix(f'{dataset.source}:{dataset.data_root}/')
        return dict(image=f'{source}:{image}', sample_id=dataset.sample_id(row), source=source)

    def attribute_figures(self, captions: Sequence[Mapping]) -> dict[str, float]:
        """:func:`attribute_figures` of the captions (see :func:`describe`) of objects whose truth is known."""
        known = [(each['text'], truth) for each in captions if not each['problem']
                 and (truth := self._truths[self.places[each['place']][0]][self.places[each['place']][1]])]
        return attribute_figures([text for text, _ in known], [truth for _, truth in known])

    def texts(self, captions: Sequence[Mapping]) -> dict[int, dict[str, str]]:
        """What each object is looked for by: place -> condition -> words.

        Args:
            captions: of all objects, see :func:`describe`.

        Raises:
            ValueError: fewer than two objects could be described.
        """
        generated = {each['place']: each['text'] for each in captions if not each['problem']}
        if len(generated) < 2:
            raise ValueError('fewer than two objects of the probe can be read: '
                             + '; '.join(each['problem'] for each in captions if each['problem']))
        places = sorted(generated)
        others = derangement([self.identity(place)['image'] for place in places])
        texts = {}
        for place, other in zip(places, others):
            caption = self.caption(place)
            texts[place] = ({} if caption is None else dict(true=caption)) | dict(
                generated=generated[place], shuffled=generated[places[other]], empty='')
        return texts


def object_rows(dataset: GroundedDataset, count: int | None = None) -> list[int]:
    """Rows of at most ``count`` different objects, spread evenly over the data set."""
    rows = np.arange(len(dataset.index))
    if 'caption' in dataset.index:  # only sentences come several to an object
        names = np.stack([dataset.index['image'], dataset.index['object']])
        rows = np.sort(np.unique(names, axis=1, return_index=True)[1])
    count = min(len(rows), count or len(rows))
    return rows[np.arange(count) * len(rows) // max(1, count)].tolist()


def derangement(groups: Sequence[Any], seed: int = 0) -> list[int]:
    """Another element for each element, each once; of another group where that is possible.

    Args:
        groups: of each element, at least two.
        seed: of the order.

    Returns:
        Numbers of the elements.
    """
    random = np.random.default_rng(seed_for(seed, 'derangement'))
    members: dict[Any, list[int]] = {}
    for element, group in enumerate(groups):
        members.setdefault(group, []).append(element)
    blocks = list(members.values())
    order = [int(element) for block in random.permutation(len(blocks)) for element in random.permutation(blocks[block])]
    # Moved on by the size of the largest group, no element meets its own unless that group is more than half of all.
    shift = max(map(len, blocks)) % len(order) or 1
    other = [0] * len(order)
    for place, element in enumerate(order):
        other[element] = order[(place + shift) % len(order)]
    return other
