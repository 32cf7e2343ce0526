"""The text of every row that is trained or asked: templates, the segmentation slot, descriptions, in one place."""

import math
from collections.abc import Sequence

import torch

from .portable import prompts
from .portable.configuration import Sa2VAConfig
from .portable.rows import caption_row, chat_row, segmentation_row, soft_segmentation_row
from .portable.sequences import IGNORE, Row
from .portable.vocabulary import Vocabulary
from .randomness import seed_for


class TextRows:
    """Makes the rows that the language model reads in training and evaluation, without a network.

    Args:
        vocabulary: of the tokenizer.
        config: of the network; says how many tokens an image has.
        seed: first part of the key of every draw.
        single_template_steps: so many steps ask and answer in one way only.
    """

    def __init__(self, vocabulary: Vocabulary, config: Sa2VAConfig, seed: int = 0, single_template_steps: int = 0):
        self.vocabulary = vocabulary
        self.config = config
        self.seed = seed
        self.single_template_steps = single_template_steps

    def templates(self, step: int, sample_id: str) -> tuple[str, str]:
        """Question and answer of a row, drawn by (seed, step, sample)."""
        if step < self.single_template_steps:
            return prompts.EVALUATION_QUESTION, prompts.SEGMENTATION_ANSWERS[0]
        drawn = seed_for(self.seed, step, 'template', sample_id)
        number, question = divmod(drawn, len(prompts.SEGMENTATION_QUESTIONS))
        answer = number % len(prompts.SEGMENTATION_ANSWERS)
        return prompts.SEGMENTATION_QUESTIONS[question], prompts.SEGMENTATION_ANSWERS[answer]

    def answer_floor(self) -> float:
        """The least answer loss that a model can reach which cannot know the drawn answers.

        The answers are equally likely and each row's loss is a mean over its own tokens, so the best guess at a token
        weighs each answer that still fits by one over its length.
        """
        rows = [segmentation_row(self.vocabulary, 1, 0, '', prompts.EVALUATION_QUESTION, answer)
                for answer in prompts.SEGMENTATION_ANSWERS]
        targets = [[label for label in row.labels if label != IGNORE] for row in rows]

        def weight(start: Sequence[int]) -> float:
            return sum(1 / len(target) for target in targets if target[: len(start)] == start)

        losses = [sum(math.log(weight(target[:place]) / weight(target[: place + 1])) for place in range(len(target)))
                  / len(target) for target in targets]
        return sum(losses) / len(losses)

    def segmentation(
        self, step: int, sample_id: str, image: int, caption: str | torch.Tensor, max_caption_len: int | None = None
    ) -> Row:
        """A drawn question for the mask of a caption, and its answer.

        Args:
            step, sample_id: key the draw of the templates.
            image: index of the image in the batch.
            caption: text, or (t, D) embeddings that stand where the text would.
            max_caption_len: tokens of a text at most; the rest is cut off.
        """
        question, answer = self.templates(step, sample_id)
        num_tokens = self.config.num_image_tokens
        if isinstance(caption, torch.Tensor):
            return soft_segmentation_row(self.vocabulary, num_tokens, image, caption, question, answer)
        phrase = self.phrase(caption, max_caption_len)
        return segmentation_row(self.vocabulary, num_tokens, image, phrase, question, answer)

    def monitored(self, image: int, caption: str) -> Row:
        """The fixed question of monitoring for the mask of a caption, with its answer given."""
        return segmentation_row(self.vocabulary, self.config.num_image_tokens, image, self.phrase(caption),
                                prompts.EVALUATION_QUESTION, prompts.SEGMENTATION_ANSWERS[0])

    def description(self, image: int, region: torch.Tensor, target: Sequence[int] | str, short: bool = False) -> Row:
        """The question for a description of a region, see :func:`~llava_sam2.portable.rows.caption_row`.

        Args:
            short: ask for a short one, as phrases are.
        """
        question = prompts.SHORT_CAPTION_QUESTION if short else prompts.CAPTION_QUESTION
        return caption_row(self.vocabulary, self.config.num_image_tokens, image, region.cpu(), target, question)

    def referring_question(self, images: range, text: str) -> Row:
        """The question of the referring evaluation, to be answered, on an image of some tiles."""
        prompt = prompts.segmentation_prompt(
            self.vocabulary.template, prompts.REFERRING_QUESTION, len(images) * self.config.num_image_tokens,
            self.phrase(text))
        return chat_row(self.vocabulary, prompt, images)

    def description_question(self, images: range, region: torch.Tensor, question: str) -> Row:
        """A question about a region (grid, grid) of an image of some tiles, to be answered."""
        prompt = prompts.caption_prompt(
            self.vocabulary.template, len(images) * self.config.num_image_tokens, int(region.sum()), question)
        return chat_row(self.vocabulary, prompt, images, region[None])

    def phrase(self, caption: str, max_caption_len: int | None = None) -> str:
        """A caption as it stands in the slot: the protocol's phrase, cut to so many tokens."""
        text = prompts.phrase(caption)
        if max_caption_len is None or len(ids := self.vocabulary.encode(text)) <= max_caption_len:
            return text
        return self.vocabulary.decode(ids[:max_caption_len])
