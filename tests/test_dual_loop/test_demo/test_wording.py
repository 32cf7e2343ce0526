"""Every sentence means one object, as a reader written apart from the generator finds it."""

from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from dual_loop.demo import demo_corpus
from dual_loop.demo.expressions import Attributes, Beside, Expression, Extreme
from dual_loop.demo.scene import Scene, SceneObject, sample_scene
from dual_loop.demo.wording import description_of, refer, sentence_form

from .plain_reader import description_matches, expression_matches


def scene_and_things(seed):
    rng = np.random.default_rng([77, seed])
    scene = sample_scene(rng)
    return rng, scene, [asdict(item) for item in scene.objects]


def row(*placed):
    """A scene of equally large objects from (shape, colour, x, y)."""
    return Scene(200, 200, 'sand', 0, tuple(SceneObject(shape, colour, 'large', 'plain', None, x, y, 25., 0., (0, 0, 0))
                                           for shape, colour, x, y in placed))


def test_every_expression_means_exactly_its_object():
    kinds = Counter()
    for seed in range(150):
        rng, scene, things = scene_and_things(seed)
        for target in range(len(things)):
            sentence = refer(rng, scene, target)
            assert expression_matches(sentence.text, things) == {target} == {sentence.target}, sentence.text
            kinds[sentence.kind] += 1
    assert 0.2 < kinds['relation'] / kinds.total() < 0.4, kinds


def test_every_description_means_exactly_its_object():
    related = 0
    for seed in range(150):
        rng, scene, things = scene_and_things(seed)
        for target in range(len(things)):
            text = description_of(rng, scene, target).text
            assert description_matches(text, scene.background, things) == {target}, text
            related += 'It is' in text
    assert related > 150


def test_relation_expressions_need_their_relation():
    found = 0
    for seed in range(60):
        rng, scene, things = scene_and_things(seed)
        for target in range(len(things)):
            expression = refer(rng, scene, target, relation_chance=1).expression
            if expression.kind == 'relation':
                found += 1
                assert len(expression.attributes.select(scene)) > 1
    assert found > 60


@pytest.mark.parametrize('x, expected', [(40., 0), (75., None), (95., None), (150., None)])
def test_left_of_needs_a_clear_distance(x, expected):
    # the star stands at x = 90; 75 is to its left, but less than the 20 pixels that make it clear
    scene = row(('circle', 'red', x, 100.), ('star', 'blue', 90., 100.))
    expression = Expression(Attributes(shape='circle'), Beside('left', Attributes(shape='star')))
    assert expression.identifies(scene) == expected


def test_left_of_is_refused_when_the_offset_is_mostly_vertical():
    scene = row(('circle', 'red', 60., 20.), ('star', 'blue', 90., 150.))
    below = Expression(Attributes(shape='star'), Beside('below', Attributes(shape='circle')))
    left = Expression(Attributes(shape='circle'), Beside('left', Attributes(shape='star')))
    assert below.identifies(scene) == 1 and left.identifies(scene) is None


def test_a_second_doubtful_object_makes_a_relation_ambiguous():
    near = row(('circle', 'red', 30., 100.), ('circle', 'pink', 85., 180.), ('star', 'blue', 90., 100.))
    far = row(('circle', 'red', 30., 100.), ('circle', 'pink', 95., 180.), ('star', 'blue', 90., 100.))
    expression = Expression(Attributes(shape='circle'), Beside('left', Attributes(shape='star')))
    assert expression.identifies(near) is None and expression.identifies(far) == 0


def test_an_ambiguous_reference_is_refused():
    scene = row(('circle', 'red', 30., 100.), ('star', 'pink', 90., 100.), ('star', 'blue', 150., 100.))
    assert Expression(Attributes(shape='circle'), Beside('left', Attributes(shape='star'))).identifies(scene) is None


def test_leftmost_needs_a_clear_lead():
    expression = Expression(Attributes(shape='circle'), Extreme('left'))
    assert expression.identifies(row(('circle', 'red', 30., 50.), ('circle', 'pink', 35., 150.))) is None
    assert expression.identifies(row(('circle', 'red', 30., 50.), ('circle', 'pink', 60., 150.))) == 0


def test_corpus_is_a_small_closed_vocabulary():
    texts = demo_corpus(seed=5, n=2000)
    words = Counter(word for text in texts for word in text.lower().replace('.', '').replace(',', '').split())
    assert len(texts) == 2000 and len(words) < 120 and min(words.values()) >= 2, words
    assert texts == demo_corpus(5, 2000) and texts[:100] == demo_corpus(5, 100)
    assert texts != demo_corpus(6, 2000)


def test_sentence_form():
    assert sentence_form('the red circle') == 'The red circle.'
