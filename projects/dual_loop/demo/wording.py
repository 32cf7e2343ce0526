"""English for structured expressions: short referring expressions and one- or two-sentence descriptions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dual_loop.demo.expressions import (
    DIRECTIONS,
    Attributes,
    Beside,
    Expression,
    Extreme,
    attribute_expressions,
    clear_neighbours,
    relation_expressions,
)
from dual_loop.demo.scene import Scene
from dual_loop.demo.world import ACCENTS, WORLDS

# An unambiguous relation exists for 92 % of the objects, so this makes 30 % of the expressions relations.
RELATION_CHANCE = 0.33
BESIDE = {'left': ('left of', 'to the left of'), 'right': ('right of', 'to the right of'),
          'above': ('above', 'higher than'), 'below': ('below', 'lower than')}
EXTREME = {'left': 'leftmost', 'right': 'rightmost', 'above': 'topmost', 'below': 'bottommost'}
FAR_SIDE = {'left': 'on the far left', 'right': 'on the far right',
            'above': 'at the very top', 'below': 'at the very bottom'}
SIZE_WORDS = {'small': ('small', 'small', 'little'), 'large': ('large', 'large', 'big')}
MARKS = {'striped': 'stripes', 'dotted': 'dots', 'checked': 'checks', 'gridded': 'gridlines',
         'zigzagged': 'zigzags'}
PLACES = {'grass': 'on grass', 'wood': 'on a wooden floor', 'tiles': 'on a tiled floor', 'sand': 'on sand',
          'bricks': 'in front of a brick wall', 'sky': 'in front of a cloudy sky', 'paper': 'on lined paper',
          'fabric': 'on dark fabric'}
NOUNS = ('object', 'thing', 'shape')  # for an expression that leaves the shape open
#: Every word of every sentence, in lower case.
WORDS = frozenset(' '.join((
    'a the it is with and', *(name for world in WORLDS.values() for name in world.names), *ACCENTS, *MARKS.values(),
    *NOUNS, *EXTREME.values(), *FAR_SIDE.values(), *PLACES.values(),
    *(' '.join(words) for words in SIZE_WORDS.values()), *(' '.join(words) for words in BESIDE.values()))).split())

T = TypeVar('T')


@dataclass(frozen=True)
class Sentence:
    """A sentence, the structured expression it renders and the index of the object that it means."""

    text: str
    expression: Expression
    target: int

    @property
    def kind(self) -> str:
        """'attribute' or 'relation'."""
        return self.expression.kind


def refer(rng: np.random.Generator, scene: Scene, target: int, relation_chance: float = RELATION_CHANCE) -> Sentence:
    """Write a short unambiguous referring expression, lower-case without a full stop.

    Args:
        rng: picks content and wording.
        scene: the scene.
        target: index of the object to refer to.
        relation_chance: probability of asking for a relation; where none is unambiguous, attributes are used.

    Returns:
        a sentence that means object ``target`` and no other.
    """
    related = relation_expressions(scene, target) if rng.random() < relation_chance else []
    options = related or attribute_expressions(scene, target)
    if not related and rng.random() < 0.8:  # naming the shape is what people mostly do
        options = [option for option in options if option.attributes.shape] or options
    expression = _choice(rng, options)
    return Sentence(_expression_text(rng, expression), expression, target)


def description_of(rng: np.random.Generator, scene: Scene, target: int) -> Sentence:
    """Write a description of one or two sentences with all attributes, often a relation and the background.

    Args:
        rng: picks content and wording.
        scene: the scene.
        target: index of the object to describe.

    Returns:
        a sentence that means object ``target`` and no other; capitals and full stops as in written English.
    """
    item = scene.objects[target]
    attributes = Attributes.of(item, ('shape', 'colour', 'size', 'texture', 'accent'))
    relations = _true_relations(scene, target)
    relation = _choice(rng, relations) if relations and rng.random() < 0.75 else None

    size = _choice(rng, SIZE_WORDS[item.size])
    if item.texture == 'plain':
        head = f'A {size} plain {item.colour} {item.shape}'
    elif rng.random() < 0.7:
        head = f'A {size} {item.colour} {item.shape} with {item.accent} {MARKS[item.texture]}'
    else:
        head = f'A {size} {item.colour} and {item.accent} {item.texture} {item.shape}'
    place = PLACES[scene.background] if rng.random() < 0.5 else None
    text = f'{head} {place}.' if place and (relation is None or rng.random() < 0.5) else f'{head}.'
    if relation is not None:
        where = _relation_clause(rng, relation)
        text += f' It is {where}, {place}.' if place and place not in text else f' It is {where}.'
    return Sentence(text, Expression(attributes, relation), target)


def sentence_form(text: str) -> str:
    """'the red circle' -> 'The red circle.'"""
    return text[0].upper() + text[1:] + '.'


def _true_relations(scene: Scene, target: int) -> list[Beside | Extreme]:
    """Relations that clearly hold: beside an object that a short phrase singles out, or outermost of all objects."""
    outermost = [Extreme(direction) for direction in DIRECTIONS]
    return clear_neighbours(scene, target) + [
        relation for relation in outermost if Expression(Attributes(), relation).identifies(scene) == target]


def _expression_text(rng: np.random.Generator, expression: Expression) -> str:
    noun = _noun_phrase(rng, expression.attributes, plain_order=expression.relation is not None)
    relation = expression.relation
    if relation is None:
        return f'the {noun}' if rng.random() < 0.4 else noun
    if isinstance(relation, Beside):
        return f'the {noun} {_relation_clause(rng, relation)}'
    if rng.random() < 0.6:
        return f'the {EXTREME[relation.direction]} {noun}'
    return f'the {noun} {FAR_SIDE[relation.direction]}'


def _relation_clause(rng: np.random.Generator, relation: Beside | Extreme) -> str:
    if isinstance(relation, Extreme):
        return f'the {EXTREME[relation.direction]} object'
    preposition = _choice(rng, BESIDE[relation.direction])
    return f'{preposition} the {_noun_phrase(rng, relation.reference, plain_order=True)}'


def _noun_phrase(rng: np.random.Generator, attributes: Attributes, plain_order: bool) -> str:
    """'small striped red circle', or unless ``plain_order`` also 'small red circle with stripes'."""
    size = _choice(rng, SIZE_WORDS[attributes.size]) if attributes.size else None
    noun = attributes.shape or _choice(rng, NOUNS)
    if attributes.texture in MARKS and not plain_order and rng.random() < 0.4:
        words = [size, attributes.colour, noun, 'with', MARKS[attributes.texture]]
    else:
        words = [size, attributes.texture, attributes.colour, noun]
    return ' '.join(word for word in words if word)


def _choice(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
