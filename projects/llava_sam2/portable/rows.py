"""Rows of the two tasks, segmentation and region captions, from text or from soft captions."""

from collections.abc import Sequence

import torch

from . import prompts
from .sequences import IGNORE, Row
from .vocabulary import Vocabulary


def _supervised(prompt: list[int], target: list[int], image: int, **kwargs) -> Row:
    return Row(prompt + target, [IGNORE] * len(prompt) + target, image, **kwargs)


def segmentation_row(
    vocabulary: Vocabulary, num_image_tokens: int, image: int, class_name: str, question: str, answer: str
) -> Row:
    """Ask for the mask of a phrase that is text; the answer is supervised. ``answer=''`` leaves the bare prompt."""
    prompt = vocabulary.encode(prompts.segmentation_prompt(vocabulary.template, question, num_image_tokens, class_name))
    return _supervised(prompt, _target(vocabulary, answer), image)


def soft_segmentation_row(
    vocabulary: Vocabulary, num_image_tokens: int, image: int, caption: torch.Tensor, question: str, answer: str
) -> Row:
    """The same for a caption that is (t, D) embeddings: they stand where the phrase would."""
    parts = prompts.split_segmentation_prompt(vocabulary.template, question, num_image_tokens)
    before, after = (vocabulary.encode(text) for text in parts)
    prompt = before + [vocabulary.pad_id] * len(caption) + after
    return _supervised(prompt, _target(vocabulary, answer), image, soft=caption, slot=len(before))


def caption_row(
    vocabulary: Vocabulary,
    num_image_tokens: int,
    image: int,
    region: torch.Tensor,
    target: Sequence[int] | str,
    question: str = prompts.CAPTION_QUESTION,
) -> Row:
    """Ask for the description of a region.

    Args:
        region: (grid, grid) bool, the cells that the mask touches.
        target: the description as text, supervised with the terminator; or token ids that are merely read (an empty
            list leaves the bare prompt).
        question: what is asked about the region.
    """
    region = region.flatten()
    prompt = vocabulary.encode(
        prompts.caption_prompt(vocabulary.template, num_image_tokens, int(region.sum()), question))
    if isinstance(target, str):
        return _supervised(prompt, _target(vocabulary, target), image, region=region)
    ids = prompt + list(target)
    return Row(ids, [IGNORE] * len(ids), image, region=region)


def chat_row(
    vocabulary: Vocabulary, prompt: str, images: Sequence[int] = (), regions: torch.Tensor | None = None
) -> Row:
    """Any prompt, to be continued.

    Args:
        prompt: whole text of the dialogue, with its image and region tokens.
        images: the tiles or frames that the image tokens stand for, in this order.
        regions: (R, grid, grid) bool, cells of the last image.
    """
    ids = vocabulary.encode(prompt)
    return Row(ids, [IGNORE] * len(ids), images, region=None if regions is None else regions.flatten(1))


def _target(vocabulary: Vocabulary, answer: str) -> list[int]:
    # Apart from the prompt, as at inference, where the prompt is encoded alone and the answer follows.
    return vocabulary.encode(vocabulary.template.ended(answer)) if answer else []
