"""What a model says and where, for pictures of any size: the one way that all evaluations ask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from llava_sam2.portable import prompts
from llava_sam2.portable.answers import Answer, answer_rows
from llava_sam2.portable.image_processing import grounding_pixels, vision_tiles
from llava_sam2.portable.network import Sa2VANetwork, binary_masks
from llava_sam2.portable.regions import region_grid
from llava_sam2.portable.sequences import Row
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.text_rows import TextRows

#: ``generate``: the model answers, and must say ``[SEG]`` itself; published numbers are made so. ``forced``: the answer
#: is given, which takes one pass instead of one per token; for monitoring, and never to be mixed with the other.
PROTOCOLS = ('generate', 'forced')
FORCED_ANSWER = prompts.SEGMENTATION_ANSWERS[0]


@dataclass
class Picture:
    """An image as both encoders read it.

    Attributes:
        tiles: (T, 3, S, S) float32, for the vision encoder.
        grounding: (3, G, G) uint8.
        size: (height, width) of the original.
    """

    tiles: torch.Tensor
    grounding: torch.Tensor
    size: tuple[int, int]


@dataclass
class Prediction:
    """What a model said to one question.

    Attributes:
        text: the answer.
        ended: whether it came to an end within the tokens that it had.
        has_seg: whether it contains ``[SEG]``.
        mask: (height, width) bool of the first ``[SEG]``, at the original size; nothing inside without one.
        logits: (G/4, G/4) of that mask, None without one.
    """

    text: str
    ended: bool
    has_seg: bool
    mask: torch.Tensor
    logits: torch.Tensor | None


class Predictor:
    """Asks a model about pictures, several questions at once.

    Args:
        network: an exported model or the network of one in training.
        vocabulary: of its tokenizer.
        poll: called before each generated token; may raise to abandon the work.
    """

    def __init__(self, network: Sa2VANetwork, vocabulary: Vocabulary, poll: Callable[[], None] | None = None):
        self.network = network
        self.vocabulary = vocabulary
        self.poll = poll
        self.text_rows = TextRows(vocabulary, network.config)

    def prepare(self, image: torch.Tensor) -> Picture:
        """An original image (3, H, W) uint8 for the encoders; on the CPU, so workers of a loader may do it."""
        config = self.network.config
        return Picture(vision_tiles(image, config.image_size, config.max_num_tiles),
                       grounding_pixels(image, config.grounding_size), tuple(image.shape[1:]))

    @torch.no_grad()
    def segment(self, pictures: Sequence[Picture], texts: Sequence[Sequence[str]], max_new_tokens: int,
                protocol: str = 'generate') -> list[list[Prediction]]:
        """Masks of described objects.

        Args:
            pictures: each is encoded once.
            texts: what to find in each picture.
            max_new_tokens: of an answer.
            protocol: one of ``PROTOCOLS``.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f'protocol must be one of {", ".join(PROTOCOLS)}, got {protocol!r}')
        answers = self._ask(pictures, texts, self._segmentation_row, max_new_tokens,
                            FORCED_ANSWER if protocol == 'forced' else None)
        # Pictures without any [SEG] need no masks, and so no encoding.
        spoken = [index for index, each in enumerate(answers) if any(len(said.seg_embeds) for said in each)]
        maps = []
        if spoken:
            grounding = torch.stack([pictures[index].grounding for index in spoken]).to(self.network.device)
            maps = self.network.encode_grounding(grounding)
        predictions = []
        for index, (picture, each) in enumerate(zip(pictures, answers)):
            of_picture = [fmap[spoken.index(index)][None] for fmap in maps] if index in spoken else []
            predictions.append(self._predictions(picture, each, of_picture))
        return predictions

    @torch.no_grad()
    def caption_regions(self, pictures: Sequence[Picture], regions: Sequence[Sequence[torch.Tensor]],
                        max_new_tokens: int, question: str = prompts.CAPTION_QUESTION) -> list[list[Prediction]]:
        """Descriptions of regions, one question for each.

        Args:
            pictures: each is encoded once.
            regions: of each picture, masks (height, width) bool.
            max_new_tokens: of a description.
            question: the words after the list of regions, in which the region is called region1.
        """
        row = partial(self._caption_row, question=question)
        answers = self._ask(pictures, regions, row, max_new_tokens)
        return [self._predictions(picture, each, []) for picture, each in zip(pictures, answers)]

    def _ask(self, pictures: Sequence[Picture], subjects: Sequence[Sequence], row: Callable[[Any, range], Row],
             max_new_tokens: int, forced: str | None = None) -> list[list[Answer]]:
        """One answer per subject of each picture; ``row`` makes its prompt from it and the numbers of the tiles."""
        rows, first = [], 0
        for picture, each in zip(pictures, subjects):
            rows += [row(subject, range(first, first + len(picture.tiles))) for subject in each]
            first += len(picture.tiles)
        if not rows:
            return [[] for _ in pictures]
        tiles = torch.cat([picture.tiles for picture in pictures]).to(self.network.device)
        features = self.network.mlp1(self.network.encode_vision(tiles))
        answers = iter(answer_rows(self.network, self.vocabulary, rows, features, max_new_tokens, forced, self.poll))
        return [[next(answers) for _ in each] for each in subjects]

    def _segmentation_row(self, text: str, images: range) -> Row:
        return self.text_rows.referring_question(images, text)

    def _caption_row(self, region: torch.Tensor, images: range, question: str) -> Row:
        return self.text_rows.description_question(images, region_grid(region, self.network.config.region_grid),
                                                   question)

    def _predictions(self, picture: Picture, answers: Sequence[Answer], maps: Sequence[torch.Tensor]
                     ) -> list[Prediction]:
        spoken = [number for number, each in enumerate(answers) if len(each.seg_embeds)] if maps else []
        masks = torch.zeros(len(answers), *picture.size, dtype=torch.bool)
        logits: dict[int, torch.Tensor] = {}
        if spoken:
            size = self.network.config.grounding_size
            decoded = self.network.decode_masks(maps, torch.stack([answers[number].seg_embeds[0] for number in spoken])
                                                [None])
            masks[spoken] = binary_masks(decoded, (size, size), picture.size)[0].cpu()
            logits = dict(zip(spoken, decoded[0].cpu()))
        return [Prediction(each.text, each.ended, len(each.seg_embeds) > 0, mask, logits.get(number))
                for number, (each, mask) in enumerate(zip(answers, masks))]
