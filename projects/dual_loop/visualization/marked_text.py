"""Texts of tokens beside another text, with what differs marked."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from llava_sam2.portable.sequences import IGNORE
from llava_sam2.portable.vocabulary import Vocabulary

from .token_view import token_chips

#: Pieces of a text and whether each differs.
Marked = Sequence[tuple[str, bool]]


def marked(vocabulary: Vocabulary, ids: Sequence[int], reference: Sequence[int] | None = None
           ) -> list[tuple[str, bool]]:
    """A text in pieces, which differ from the reference or do not; tokens that share a character are one.

    Args:
        vocabulary: of the tokens.
        ids: of the text.
        reference: tokens that are compared with these place by place; without them nothing differs.
    """
    same = ids if reference is None else reference
    differs = [place >= len(same) or index != same[place] for place, index in enumerate(ids)]
    pieces, place = [], 0
    for chip in token_chips(vocabulary, ids, [IGNORE] * len(ids)):
        pieces.append((chip.text, any(differs[place:place + len(chip.ids)])))
        place += len(chip.ids)
    return [(''.join(text for text, _ in run), changed) for changed, run in groupby(pieces, key=lambda each: each[1])]


def as_html(text: Marked) -> str:
    """Pieces that differ in ``<mark>``; spaces at their ends stay outside of it."""
    html = ''
    for piece, changed in text:
        bare = piece.strip()
        before, _, after = piece.partition(bare) if bare else (piece, '', '')
        html += f'{escape(before)}<mark>{escape(bare)}</mark>{escape(after)}' if changed and bare else escape(piece)
    return html.strip()
