"""What the page asks a model, and what it tells the user: plain sentences and pictures, nothing of a browser."""

import re
import threading
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from dual_loop.demo import demo_corpus
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.photograph import Outline, Photograph, iou, read_photo
from dual_loop.evaluation.prompted import Region
from dual_loop.visualization.outline import outlined
from dual_loop.visualization.palette import TARGET_COLOUR

from .canvas import CLICKS, Canvas
from .scenes import Example, Frame

MAX_PIXELS = 50_000_000  # of a picture; a mask of so many is 50 MB, and there may be several users
MAX_PHRASE = 300  # characters
#: Least IoU of a region with an object of an example for which it is taken.
SAME_OBJECT = 0.1


@dataclass(frozen=True)
class Reply:
    """What the page shows of an answer.

    Attributes:
        headline: one sentence.
        details: further ones.
        pictures: each with what stands below it.
    """

    headline: str
    details: list[str] = field(default_factory=list)
    pictures: list[tuple[Image.Image, str]] = field(default_factory=list)


class Questions:
    """Asks one model for all users of the page, one question at a time.

    Args:
        loaded: the model.
        max_new_tokens: of an answer.
        shapes_only: it is ``assets/tiny``, which knows the demo world only.
    """

    def __init__(self, loaded: Loaded, max_new_tokens: int = 256, shapes_only: bool = False):
        self.loaded, self.max_new_tokens, self.shapes_only = loaded, max_new_tokens, shapes_only
        self._one_at_a_time = threading.Lock()

    def pose(self, example: Example) -> tuple[Canvas, Canvas]:
        """Both frames of an example; its object is marked in the first."""
        first, second = (self._of_frame(frame) for frame in (example.first, example.second))
        region = Region(example.first.objects[example.target], 'example', "the object's own mask, of the example")
        return replace(first, region=region), second

    def open(self, path: Path) -> Canvas:
        """A picture of the user's.

        Raises:
            ValueError: it is no picture, or too large for the page.
        """
        if _too_large(path):
            raise ValueError(f'{path.name} has more than {MAX_PIXELS // 10**6} million pixels: make it smaller, or use '
                             'the command `dual-loop segment`.')
        try:
            image = read_photo(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), path.name)) from error
        return Canvas(self._photograph(path.name, image))

    def mark(self, canvas: Canvas, x: float, y: float) -> Canvas:
        """A click, in pixels of the picture as it is shown."""
        with self._one_at_a_time:
            return canvas.clicked(x, y)

    def find(self, canvas: Canvas | None, phrase: str) -> Reply:
        """Words to mask.

        Raises:
            ValueError: no picture or no words.
        """
        phrase = ' '.join((phrase or '').split())
        if canvas is None:
            raise ValueError('There is no picture yet: choose an example or a picture of your own.')
        if not phrase:
            raise ValueError('Write what to find, such as “the red ring”.')
        if len(phrase) > MAX_PHRASE:
            raise ValueError(f'That is {len(phrase)} characters long: name one object, in at most {MAX_PHRASE}.')
        with self._one_at_a_time:
            answer = canvas.photograph.segment(phrase)
        mask = answer.notes['mask']
        details = [f'The model answered: “{answer.notes["answer"]}”', *self._unknown(phrase)]
        if not mask['area']:
            return Reply('Nothing was found in this picture.', details)
        return Reply(f'Found: {_share(mask["area"], canvas)} of the picture.', details,
                     [(outlined(canvas.photograph.image, answer.outlines)[1], phrase)])

    def describe(self, canvas: Canvas | None) -> Reply:
        """Region to words.

        Raises:
            ValueError: no region.
        """
        region = _marked(canvas)
        with self._one_at_a_time:
            text = canvas.photograph.describe(lambda *_: region).notes['text']
        return Reply(text.strip() or 'The model said nothing about this region.', [_of_region(region, canvas)])

    def go_round(self, canvas: Canvas | None, second: Canvas | None) -> Reply:
        """Region to words, and these to a mask in the same picture and in a second one.

        Raises:
            ValueError: no region.
        """
        region = _marked(canvas)
        with self._one_at_a_time:
            answer = canvas.photograph.describe(lambda *_: region, cycle=True)
            text = answer.notes['text']
            elsewhere = second.photograph.segment(text) if second else None
        pictures = [(outlined(canvas.photograph.image, answer.outlines)[1],
                     f'This picture: {_verdict(answer.outlines[1:], region.mask)}')]
        details = [_of_region(region, canvas)]
        if elsewhere is None:
            details.append('There is no second picture: choose one to see whether the words find the object there.')
        else:
            truth, reason = _truth(region, canvas, second)
            marked = [] if truth is None else [(truth, TARGET_COLOUR)]
            pictures.append((outlined(second.photograph.image, [*marked, *elsewhere.outlines])[1],
                             f'Second picture: {_verdict(elsewhere.outlines, truth, reason)}'))
        return Reply(text.strip() or 'The model said nothing about this region.', details, pictures)

    def _of_frame(self, frame: Frame) -> Canvas:
        return Canvas(self._photograph('example', frame.image), frame.objects)

    def _photograph(self, name: str, image: torch.Tensor) -> Photograph:
        return Photograph(name, image, self.loaded, self.max_new_tokens)

    def _unknown(self, phrase: str) -> list[str]:
        if not self.shapes_only:
            return []
        words = sorted(set(re.findall(r'\w+', phrase)) - world_words(), key=phrase.index)
        if not words:
            return []
        listed = ', '.join(f'“{word}”' for word in words[:5])
        return [f'This small model has never read {listed}: it knows lower-case English about coloured shapes, such as '
                '“the red ring” or “the large striped star”. For other pictures and words start the page with --model.']


@cache
def world_words() -> frozenset[str]:
    """All words that the captions of the demo world have."""
    return frozenset(word for text in demo_corpus(0, 2000) for word in re.findall(r'\w+', text))


def _too_large(path: Path) -> bool:
    """Whether a picture is too large for the page, by its header; of what is no picture, ``read_photo`` says it."""
    try:
        with Image.open(path) as picture:
            return picture.width * picture.height > MAX_PIXELS
    except Image.DecompressionBombError:
        return True
    except (OSError, ValueError, SyntaxError):
        return False


def _marked(canvas: Canvas | None) -> Region:
    if canvas is None:
        raise ValueError('There is no picture yet: choose an example or a picture of your own.')
    if canvas.region is None:
        left = CLICKS[canvas.kind] - len(canvas.clicks)
        raise ValueError('No region is marked yet: click an object in the picture.' if not canvas.clicks else
                         f'The {canvas.kind} is not complete: click {left} more time{"s" * (left > 1)}.')
    return canvas.region


def _truth(region: Region, canvas: Canvas, second: Canvas) -> tuple[torch.Tensor | None, str]:
    """The region that should be found in the second picture; without one, why."""
    if second.region is not None:
        return second.region.mask, ''
    if canvas.objects is None or second.objects is None:
        return None, 'mark the object there too for an IoU'
    ious = [iou(region.mask, each) for each in canvas.objects]
    if max(ious) < SAME_OBJECT:
        return None, 'the region holds no object, so there is no IoU'
    return second.objects[ious.index(max(ious))], ''


def _verdict(found: list[Outline], truth: torch.Tensor | None, reason: str = '') -> str:
    """What stands below a picture in which the words were looked for."""
    if not found:
        return 'nothing found' if truth is None else 'nothing found, IoU 0.00'
    return f'found; {reason}' if truth is None else f'found again, IoU {iou(found[0][0], truth):.2f}'


def _of_region(region: Region, canvas: Canvas) -> str:
    return f'Region: {region.rule}, {_share(int(region.mask.sum()), canvas)} of the picture.'


def _share(area: int, canvas: Canvas) -> str:
    height, width = canvas.photograph.picture.size
    return f'{area} pixels, {area / (height * width):.1%}'
