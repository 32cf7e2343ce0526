"""Whether captions of the demo worlds say what is there: their words against the truth of the scene, exactly."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dual_loop.demo.shapes import SHAPES
from dual_loop.demo.wording import BESIDE, FAR_SIDE, MARKS, NOUNS, PLACES, SIZE_WORDS, WORDS
from dual_loop.demo.world import ACCENTS, COLOURS, NAMED, NEW_NAMES, WORLDS

from .caption_scores import spoken

_TOKEN = re.compile(r'[^\W\d_]+|\S')
#: Word -> the attribute that it names, and its value.
_MEANINGS = {
    **{word: ('shape', word) for word in SHAPES}, **{word: ('colour', word) for word in COLOURS},
    **{word: ('size', size) for size, words in SIZE_WORDS.items() for word in words},
    **{word: ('texture', word) for world in WORLDS.values() for word in world.textures},
    **{word: ('texture', name) for name, word in MARKS.items()},
}
# What comes after one of these is another object or the background.
_RELATIONS = {phrase.split()[0] for phrases in BESIDE.values() for phrase in phrases} | {
    phrase.split()[0] for phrase in (*FAR_SIDE.values(), *PLACES.values())} | {
    'under', 'over', 'beside', 'behind', 'near', 'next', 'between', 'inside', 'from', 'of', 'than'}
_AFTER_THE_NOUN = {'with', 'and', *ACCENTS, *(word for word, (name, _) in _MEANINGS.items() if name == 'texture')}
_NEW_WORDS = NEW_NAMES | {MARKS[name] for name in NEW_NAMES & MARKS.keys()}


def words_of(text: str) -> list[str]:
    """Words in lower case and single punctuation marks, in order, without what models add to a caption."""
    return _TOKEN.findall(spoken(text).lower())


def has_new_name(text: str) -> bool:
    """Whether a text names a shape, colour or texture that the first world does not have."""
    return not _NEW_WORDS.isdisjoint(words_of(text))


def named_attributes(caption: str) -> dict[str, str | None]:
    """Shape, colour, size and texture of the first object that a caption names.

    Words after a relation ('left of', 'on grass') belong to something else, and so does what follows the noun, unless
    it says which marks the object has ('with white stripes'). None where the caption names no value or several.
    """
    found: dict[str, set[str]] = {name: set() for name in NAMED}
    has_noun = False
    for word in words_of(caption):
        if word in _RELATIONS or has_noun and word not in _AFTER_THE_NOUN:
            break
        if word in '.!?' and any(found.values()):
            break
        if word in _MEANINGS:
            name, value = _MEANINGS[word]
            found[name].add(value)
        has_noun = has_noun or word in SHAPES or word in NOUNS
    return {name: values.pop() if len(values) == 1 else None for name, values in found.items()}


def right_attributes(caption: str, truth: Mapping[str, Any]) -> dict[str, bool]:
    """Which of shape, colour, size and texture a caption has right, and ``all_four``; ``truth`` has their values."""
    named = named_attributes(caption)
    right = {name: named[name] == truth[name] for name in NAMED}
    return right | dict(all_four=all(right.values()))


def attribute_figures(captions: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares of captions, 0 to 1; empty without any.

    ``accuracy_shape``, ``_colour``, ``_size``, ``_texture`` and ``_all_four``: of captions that have it right.
    ``unknown_words``: of all words those that no sentence of the demo worlds has. If some objects have names that the
    first world does not have: each accuracy but that of the size also as ``<name>_new`` and ``<name>_old`` (over the
    objects where that attribute, for all four any attribute, is new, and over the others), and
    ``accuracy_new_names`` and ``accuracy_old_names`` over single shapes, colours and textures.

    Args:
        captions: what is said of each object.
        truths: its shape, colour, size and texture.
    """
    if not captions:
        return {}
    right = [right_attributes(caption, truth) for caption, truth in zip(captions, truths, strict=True)]
    figures = {f'accuracy_{name}': _mean([each[name] for each in right]) for name in (*NAMED, 'all_four')}
    is_new = [{name: truth[name] in NEW_NAMES for name in NAMED} for truth in truths]
    is_new = [each | dict(all_four=any(each.values())) for each in is_new]
    single: dict[bool, list[bool]] = {True: [], False: []}  # is it new -> whether each name is right
    for name in ('shape', 'colour', 'texture', 'all_four'):
        parts = {kind: [each[name] for each, new in zip(right, is_new) if new[name] == kind] for kind in (True, False)}
        if name != 'all_four':
            single = {kind: [*values, *parts[kind]] for kind, values in single.items()}
        if parts[True]:
            figures |= {f'accuracy_{name}_{kind}': _mean(parts[kind == 'new']) for kind in ('new', 'old')
                        if parts[kind == 'new']}
    if single[True]:
        figures |= dict(accuracy_new_names=_mean(single[True]), accuracy_old_names=_mean(single[False]))
    said = [word for caption in captions for word in words_of(caption) if word.isalpha()]
    return figures | dict(unknown_words=_mean([word not in WORDS for word in said]))


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / max(1, len(values))
