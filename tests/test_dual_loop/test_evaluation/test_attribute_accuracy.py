"""The words of captions against the attributes of objects: with the generator of sentences, and with bad captions."""

import re
from collections import Counter

import numpy as np
import pytest

from dual_loop.demo import demo_corpus
from dual_loop.demo.scene import sample_scene
from dual_loop.demo.wording import WORDS, description_of, refer
from dual_loop.demo.world import NAMED, WORLDS, B
from dual_loop.evaluation.attribute_accuracy import (
    attribute_figures,
    has_new_name,
    named_attributes,
    right_attributes,
)

RING = dict(shape='ring', colour='red', size='small', texture='striped')
NOTHING = dict.fromkeys(NAMED)


def sentences(count):
    """(expression, its attributes, description, the object) of ``count`` scenes of both worlds."""
    for seed in range(count):
        for world in WORLDS.values():
            rng = np.random.default_rng([61, seed])
            scene = sample_scene(rng, world)
            for target, item in enumerate(scene.objects):
                expression, description = refer(rng, scene, target), description_of(rng, scene, target)
                yield expression.text, expression.expression.attributes, description.text, item


@pytest.fixture(scope='module')
def written():
    return list(sentences(600))


def test_what_the_generator_says_is_read_back_and_nothing_else(written):
    assert len(written) > 3000
    for expression, said, description, item in written:
        assert named_attributes(expression) == {name: getattr(said, name) for name in NAMED}, expression
        assert named_attributes(description) == {name: getattr(item, name) for name in NAMED}, description


def test_a_description_is_right_of_its_object_alone(written):
    """Of two objects that differ, a description has those attributes right that they share."""
    for (_, _, description, item), (*_, other) in zip(written, written[1:]):
        truth = {name: getattr(other, name) for name in NAMED}
        right = right_attributes(description, truth)
        assert right == {name: truth[name] == getattr(item, name) for name in NAMED} | dict(
            all_four=truth == {name: getattr(item, name) for name in NAMED})


def test_new_names_are_seen_wherever_they_stand(written):
    counts = Counter()
    for expression, said, description, item in written:
        assert has_new_name(description) or B.new.isdisjoint(item.look)
        if not B.new.isdisjoint(vars(said).values()):
            assert has_new_name(expression)
        counts[has_new_name(expression)] += 1
    assert min(counts.values()) > 500
    assert has_new_name('ring left of the thing with Zigzags') and not has_new_name('the blue ring, striped and big')


def test_the_list_of_words_is_that_of_the_sentences():
    used = {word for text in demo_corpus(seed=3, n=8000) for word in re.findall('[a-z]+', text.lower())}
    assert used == WORDS


@pytest.mark.parametrize('caption, said', [
    ('', NOTHING),
    ('.', NOTHING),
    ('<p>A small red ring with white stripes.</p> [SEG].', RING),
    ('a LITTLE red and white striped RING', RING),
    ('small striped red ring, left of a large plain blue star', RING),
    ('small striped red ring and a large plain blue star', RING),
    ('small striped red ring a large plain blue star', RING),
    ('small striped red ring large plain blue star', RING),
    ('The small striped red ring higher than the dotted square', RING),
    ('It is a small striped red ring. It is a blue star.', RING),
    ('Sure. A small red ring with stripes.', RING),
    ('left of the small striped red ring', NOTHING),
    ('It is below the small striped red ring.', NOTHING),
    ('the leftmost small striped red ring on grass', RING),
    ('small striped red blue ring', RING | dict(colour=None)),
    ('small large striped red ring', RING | dict(size=None)),
    ('small red ring with stripes and dots', RING | dict(texture=None)),
    ('small plain red ring with stripes', RING | dict(texture=None)),
    ('a small red thing with stripes', RING | dict(shape=None)),
    ('a small red thing, a striped ring', RING | dict(shape=None, texture=None)),
    ('red red red', NOTHING | dict(colour='red')),
    ('small. striped red ring', NOTHING | dict(size='small')),
    ('rings redder smallest stripe', NOTHING),
    ('white ring', NOTHING | dict(shape='ring')),  # white is a colour of marks only
    ('kleiner roter Ring', NOTHING | dict(shape='ring')),
    ('a ring\n\tthat is small, red and striped', NOTHING | dict(shape='ring')),
])
def test_captions_that_no_generator_wrote(caption, said):
    assert named_attributes(caption) == said


def test_figures_by_hand():
    bar = dict(shape='bar', colour='red', size='large', texture='plain')  # one new name of three
    truths = [RING, bar, RING, bar]
    captions = ['a small red ring with stripes', 'a large plain red circle', 'a small blue ring', 'glorp bar']
    assert attribute_figures(captions, truths) == dict(
        accuracy_shape=3 / 4, accuracy_colour=2 / 4, accuracy_size=3 / 4, accuracy_texture=2 / 4,
        accuracy_all_four=1 / 4, accuracy_shape_new=1 / 2, accuracy_shape_old=1, accuracy_all_four_new=0,
        accuracy_all_four_old=1 / 2, accuracy_new_names=1 / 2,
        accuracy_old_names=(2 + 2 + 2) / 10, unknown_words=1 / 17)


def test_without_new_names_nothing_is_split_and_without_captions_there_is_no_figure():
    figures = attribute_figures(['a small red ring with stripes'], [RING])
    assert figures == dict.fromkeys([f'accuracy_{name}' for name in (*NAMED, 'all_four')], 1) | dict(unknown_words=0)
    assert attribute_figures([], []) == {}
    assert attribute_figures(['', ''], [RING, RING])['unknown_words'] == 0
