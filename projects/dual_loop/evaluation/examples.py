"""Pictures of the best, the worst and some random samples of an evaluation, for its page.

Results hold no masks, so the model is asked about these samples once more, each alone. At pixels on the threshold such
a mask may differ from the one that was scored in a batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from dual_loop.datasets import GroundedDataset, RefCOCODataset
from dual_loop.visualization.outline import at_height, outlined_at
from dual_loop.visualization.palette import PREDICTED_COLOUR, PROMPT_COLOUR, TARGET_COLOUR, Colour

from .captions import ReferredObjects
from .cycle_probe import Probe
from .loading import Loaded
from .page import HEIGHT, Example, choose_examples

Panels = list[tuple[str, Image.Image]]


def referring_examples(loaded: Loaded, dataset: RefCOCODataset, results: Mapping[str, Any], count: int
                       ) -> list[Example]:
    """Predicted and true masks of sentences; ``count`` of each group."""
    predictor = loaded.predictor()
    rows = {dataset.sample_id(row): row for row in range(len(dataset.index))}

    def panels(sample: Mapping[str, Any]) -> Panels:
        row = rows[sample['sample_id']]
        image = dataset.read_image(row)
        (said, ), = predictor.segment([predictor.prepare(image)], [[sample['text']]], results['max_new_tokens'],
                                      results['protocol'])
        return [_plain('picture', image), _panel('found', image, said.mask, PREDICTED_COLOUR),
                _panel('to find', image, dataset.read_mask(row, *image.shape[1:]), TARGET_COLOUR)]

    return _examples(results, count, panels)


def caption_examples(loaded: Loaded, dataset: RefCOCODataset, results: Mapping[str, Any], count: int) -> list[Example]:
    """The described regions."""
    objects = ReferredObjects(dataset)
    rows = {objects.sample_id(row): row for row in range(len(objects.index))}

    def panels(sample: Mapping[str, Any]) -> Panels:
        image = objects.read_image(rows[sample['sample_id']])
        mask = objects.read_mask(rows[sample['sample_id']], *image.shape[1:])
        return [_plain('picture', image), _panel('region', image, mask, PROMPT_COLOUR)]

    return _examples(results, count, panels)


def cycle_examples(loaded: Loaded, sources: Mapping[str, GroundedDataset], results: Mapping[str, Any], count: int
                   ) -> list[Example]:
    """The described mask, and what is found by the description in each frame."""
    predictor = loaded.predictor()
    probe = Probe(sources, predictor.prepare, 1, results['dataset']['max_samples'])
    places = {probe.identity(place)['sample_id']: place for place in range(len(probe.places))}
    descriptions = {each['sample_id']: each['text'] for each in results['samples'] if each['condition'] == 'generated'}

    def panels(sample: Mapping[str, Any]) -> Panels:
        source, row = probe.places[places[sample['sample_id']]]
        frames = list(probe.sources[source].frames(row))
        drawn = [_plain('picture', frames[0][0]), _panel('described', *frames[0], PROMPT_COLOUR)]
        for name, (image, mask) in zip(('same frame', 'paired frame'), frames):
            (said, ), = predictor.segment([predictor.prepare(image)], [[descriptions[sample['sample_id']]]],
                                          results['max_new_tokens'], results['protocol'])
            drawn += [_plain('paired frame', image)] * (name == 'paired frame')
            drawn += [_panel(f'found in the {name}', image, said.mask, PREDICTED_COLOUR),
                      _panel('to find', image, mask, TARGET_COLOUR)]
        return drawn

    return _examples(results, count, panels)


def _examples(results: Mapping[str, Any], count: int, panels: Callable[[Mapping], Panels]) -> list[Example]:
    samples = {sample['sample_id']: sample for sample in results['samples']}
    return [Example(name, group, panels(samples[name]))
            for group, names in choose_examples(results['samples'], count).items() for name in names]


def _plain(title: str, image: torch.Tensor) -> tuple[str, Image.Image]:
    return title, at_height(image, HEIGHT)


def _panel(title: str, image: torch.Tensor, mask: torch.Tensor | np.ndarray, colour: Colour
           ) -> tuple[str, Image.Image]:
    return title, outlined_at(image, torch.as_tensor(mask), colour, HEIGHT)
