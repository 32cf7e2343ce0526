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
from llava_sam2.portable.sequences import Row, on_device
from llava_sam2.portable.static_decoding import KeptDecoder
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
        logits: (G/4, G/4) of that mask, on the model's device; None without one.
    """

    text: str
    ended: bool
    has_seg: bool
    mask: torch.Tensor
    logits: torch.Tensor | None


#: Numbers of a picture and of its answer -> mask and logits of a :class:`Prediction`.
Masks = dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]


class Predictor:
    """Asks a model about pictures, several questions at once.

    Args:
        network: an exported model or the network of one in training.
        vocabulary: of its tokenizer.
        poll: called before each generated token, or every few; may raise to abandon the work.
        decoder: to be kept from batch to batch; without one answers are decoded plainly, which is slower and, but for
            rounding, the same.
    """

    def __init__(self, network: Sa2VANetwork, vocabulary: Vocabulary, poll: Callable[[], None] | None = None,
                 decoder: KeptDecoder | None = None):
        self.network = network
        self.vocabulary = vocabulary
        self.poll = poll
        self.decoder = decoder
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
        return self._predictions(pictures, answers, self._masks(pictures, answers))

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
        return self._predictions(pictures, answers, {})

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
        decoder = self.decoder and forced is None and self.decoder.of(self.network, self.vocabulary)
        answers = iter(answer_rows(self.network, self.vocabulary, rows, features, max_new_tokens, forced, self.poll,
                                   decoder or None))
        return [[next(answers) for _ in each] for each in subjects]

    def _segmentation_row(self, text: str, images: range) -> Row:
        return self.text_rows.referring_question(images, text)

    def _caption_row(self, region: torch.Tensor, images: range, question: str) -> Row:
        return self.text_rows.description_question(images, region_grid(region, self.network.config.region_grid),
                                                   question)

    def _masks(self, pictures: Sequence[Picture], answers: Sequence[Sequence[Answer]]) -> Masks:
        """Of each answer with ``[SEG]``, by the numbers of its picture and of the answer.

        All are decoded at once, and the host waits for all at once.
        """
        said = [(index, number) for index, each in enumerate(answers) for number, answer in enumerate(each)
                if len(answer.seg_embeds)]
        if not said:
            return {}
        network, size = self.network, self.network.config.grounding_size
        # Pictures without any [SEG] need no masks, and so no encoding.
        spoken = sorted({index for index, _ in said})
        maps = network.encode_grounding(torch.stack([pictures[index].grounding for index in spoken]).to(network.device))
        embeds = torch.stack([answers[index][number].seg_embeds[0] for index, number in said])
        image_of_row = on_device([spoken.index(index) for index, _ in said], embeds.device)
        logits = network.decode_masks(maps, embeds[:, None], image_of_row)[:, 0]
        counts = [sum(index == each for index, _ in said) for each in spoken]
        sizes = [pictures[index].size for index in spoken]
        masks = [binary_masks(of_picture[None], (size, size), original)[0].flatten()
                 for of_picture, original in zip(logits.split(counts), sizes)]
        on_host = torch.cat(masks).cpu().split([mask.numel() for mask in masks])
        shaped = [mask for flat, count, original in zip(on_host, counts, sizes) for mask in flat.view(count, *original)]
        return dict(zip(said, zip(shaped, logits)))

    @staticmethod
    def _predictions(pictures: Sequence[Picture], answers: Sequence[Sequence[Answer]], masks: Masks
                     ) -> list[list[Prediction]]:
        predictions = []
        for index, (picture, each) in enumerate(zip(pictures, answers)):
            nothing = torch.zeros(picture.size, dtype=torch.bool), None
            predictions.append([
                Prediction(answer.text, answer.ended, len(answer.seg_embeds) > 0, *masks.get((index, number), nothing))
                for number, answer in enumerate(each)])
        return predictions
