"""Finds the object that a sentence means from its words alone: written apart from the code that makes the sentences.

Objects are dicts with shape, colour, size, texture, accent, x, y (centre in pixels) and radius.
"""

import re

COLOURS = ['red', 'orange', 'yellow', 'green', 'cyan', 'blue', 'purple', 'pink', 'brown', 'grey', 'navy', 'lime']
SHAPES = ['circle', 'square', 'triangle', 'star', 'ring', 'cross', 'heart', 'crescent', 'diamond', 'bar', 'arrow',
          'hourglass']
TEXTURE = {'plain': 'plain', 'striped': 'striped', 'stripes': 'striped', 'dotted': 'dotted', 'dots': 'dotted',
           'checked': 'checked', 'checks': 'checked', 'gridded': 'gridded', 'gridlines': 'gridded',
           'zigzagged': 'zigzagged', 'zigzags': 'zigzagged'}
SIZE = {'small': 'small', 'little': 'small', 'large': 'large', 'big': 'large'}
FILLERS = {'the', 'a', 'and', 'with', 'object', 'thing', 'shape'}
SIDES = {'to the left of': 'left', 'left of': 'left', 'to the right of': 'right', 'right of': 'right', 'above': 'above',
         'higher than': 'above', 'below': 'below', 'lower than': 'below'}
ENDS = {'leftmost': 'left', 'on the far left': 'left', 'rightmost': 'right', 'on the far right': 'right',
        'topmost': 'above', 'at the very top': 'above', 'bottommost': 'below', 'at the very bottom': 'below'}
PLACES = {'grass': 'on grass', 'wood': 'on a wooden floor', 'tiles': 'on a tiled floor', 'sand': 'on sand',
          'bricks': 'in front of a brick wall', 'sky': 'in front of a cloudy sky', 'paper': 'on lined paper',
          'fabric': 'on dark fabric'}


def towards(thing, side):
    return {'left': -thing['x'], 'right': thing['x'], 'above': -thing['y'], 'below': thing['y']}[side]


def noun_matches(phrase, things):
    """Indices of the things that a phrase such as 'small red circle with white stripes' fits."""
    left = set(range(len(things)))
    for word in phrase.split():
        if word in COLOURS:
            left = {k for k in left if things[k]['colour'] == word}
        elif word in SHAPES:
            left = {k for k in left if things[k]['shape'] == word}
        elif word in SIZE:
            left = {k for k in left if things[k]['size'] == SIZE[word]}
        elif word in TEXTURE:
            left = {k for k in left if things[k]['texture'] == TEXTURE[word]}
        elif word in ('white', 'black'):
            left = {k for k in left if things[k]['accent'] == word}
        else:
            assert word in FILLERS, f'unknown word {word!r} in {phrase!r}'
    return left


def expression_matches(text, things):
    """Indices of the things that a referring expression fits, every relation read as generously as possible."""
    for words, side in ENDS.items():
        if words in text:
            candidates = noun_matches(text.replace(words, ''), things)
            best = max(towards(things[k], side) for k in candidates)
            return {k for k in candidates if towards(things[k], side) == best}
    for words, side in SIDES.items():
        if f' {words} ' in text:
            noun, reference = text.split(f' {words} ')
            anchors = noun_matches(reference, things)
            assert len(anchors) == 1, f'{reference!r} fits {len(anchors)} objects'
            limit = towards(things[anchors.pop()], side)
            return {k for k in noun_matches(noun, things) if towards(things[k], side) > limit}
    return noun_matches(text, things)


def description_matches(text, background, things):
    """The same for a description of one or two sentences; checks what it says of the background, too."""
    assert re.fullmatch(r'A [a-z ,]+\.( It is [a-z ,]+\.)?', text), text
    text = text[0].lower() + text[1:-1]
    for kind, words in PLACES.items():
        if words in text:
            assert kind == background, f'{text!r} on {background}'
            text = text.replace(f', {words}', '').replace(f' {words}', '')
    head, _, where = text.partition('. It is ')
    matches = noun_matches(head, things)
    if where.endswith('most object'):
        matches &= expression_matches(where, things)
    elif where:
        matches &= expression_matches(f'object {where}', things)
    return matches
