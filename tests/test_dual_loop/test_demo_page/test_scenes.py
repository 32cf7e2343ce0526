"""The example pictures: phrases name what they say, and frames fit together."""

import numpy as np
import torch

from dual_loop.demo.rendering import draw_pair
from dual_loop.demo_page.scenes import EXAMPLES, draw_examples


def test_each_phrase_names_one_object():
    for seed, target, phrase in EXAMPLES:
        (scene, *_), _ = draw_pair(np.random.default_rng(seed))
        words = set(phrase.split()) - {'the'}
        named = [number for number, item in enumerate(scene.objects) if words <= set(item.look)]
        assert named == [target], phrase


def test_examples_are_equal_each_time_and_their_frames_fit():
    for one, other, (_, target, phrase) in zip(draw_examples(), draw_examples(), EXAMPLES, strict=True):
        assert (one.target, one.phrase) == (target, phrase)
        for frame, again in ((one.first, other.first), (one.second, other.second)):
            assert frame.image.dtype == torch.uint8 and frame.image.shape[1:] == frame.objects.shape[1:]
            assert torch.equal(frame.image, again.image) and torch.equal(frame.objects, again.objects)
        assert len(one.first.objects) == len(one.second.objects) > target
        assert not torch.equal(one.first.image, one.second.image)
