"""Figures that show whether captions are language or have drifted into a code of their own."""

from collections.abc import Sequence


def distinct(captions: Sequence[Sequence[int]], n: int) -> float:
    """Distinct-n (Li et al. 2016): number of different n-grams over the number of all; 0 without n-grams."""
    grams = [tuple(ids[i : i + n]) for ids in captions for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def caption_figures(captions: Sequence[Sequence[int]], ended: Sequence[bool]) -> dict[str, float]:
    """Mean length in tokens, distinct-1 and -2, and the share of captions that hit the length limit."""
    if not captions:
        return {}
    return {
        'caption_len': sum(map(len, captions)) / len(captions),
        'distinct_1': distinct(captions, 1),
        'distinct_2': distinct(captions, 2),
        'hit_max_len': 1 - sum(ended) / len(ended),
    }
