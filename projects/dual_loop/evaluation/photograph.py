"""One photograph of the user's: what a model finds in it by words, and what it says about a region."""

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco

from dual_loop.datasets.images import read_image
from dual_loop.visualization.outline import beside_outlined
from dual_loop.visualization.palette import PREDICTED_COLOUR, PROMPT_COLOUR
from llava_sam2.download import download_command
from llava_sam2.paths import CHECKOUT, writing

from .loading import Loaded, load_model
from .predictor import Picture, Prediction
from .prompted import Region, no_picture

TINY = CHECKOUT / 'assets/tiny'
DEFAULT_OUT = Path('work_dirs/try')

Outline = tuple[torch.Tensor, tuple[int, int, int]]


@dataclass(frozen=True)
class Answer:
    """What a model says about a photograph.

    Attributes:
        notes: for a JSON file.
        outlines: masks (H, W) bool, each with the colour of its line; none is empty.
    """

    notes: dict[str, Any]
    outlines: list[Outline]


def read_photo(path: Path) -> torch.Tensor:
    """Pixels (3, H, W) uint8 of a picture in any format that PIL reads, turned the way its EXIF tag says.

    Raises:
        ValueError: the file is no picture, or missing.
    """
    try:
        return read_image(path)
    except ValueError as error:
        raise no_picture(path, error) from error


def answering_model(folder: Path | None = None, dtype: str | None = None) -> Loaded:
    """An exported or released model, on the GPU if there is one.

    Args:
        folder: of the model; None is ``assets/tiny``.
        dtype: of the weights; None for what the model states.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no model.
    """
    if folder is not None and not folder.is_dir():
        there = 'is a file' if folder.exists() else 'does not exist'
        raise FileNotFoundError(f'--model {folder} {there}: give the folder of an exported model, or fetch a '
                                f'released one: `{download_command(folder)}`')
    return load_model(folder or TINY, dtype=dtype, device='cuda' if torch.cuda.is_available() else 'cpu')


class Photograph:
    """A photograph and the model that is asked about it.

    Args:
        name: stands in the answers.
        image: (3, H, W) uint8, as ``read_photo`` gives it.
        loaded: model of ``answering_model``.
        max_new_tokens: of an answer.
    """

    def __init__(self, name: str, image: torch.Tensor, loaded: Loaded, max_new_tokens: int = 256):
        self.name, self.image, self.loaded, self.max_new_tokens = name, image, loaded, max_new_tokens
        self._predictor = loaded.predictor()
        self.picture: Picture = self._predictor.prepare(image)

    def segment(self, text: str) -> Answer:
        """What is found by a phrase."""
        said = self._found(text)
        return Answer(self._notes() | dict(text=text) | _found(said), _outline(said))

    def describe(self, region_of: Callable[[Loaded, Picture], Region], cycle: bool = False) -> Answer:
        """What the model says about a region, and with ``cycle`` what it finds by its own words."""
        region = region_of(self.loaded, self.picture)
        (said, ), = self._predictor.caption_regions([self.picture], [[region.mask]], self.max_new_tokens)
        notes = self._notes() | dict(
            region=dict(prompt=region.prompt, rule=region.rule) | of_mask(region.mask), text=said.text,
            ended=said.ended)
        outlines: list[Outline] = [(region.mask, PROMPT_COLOUR)]
        if cycle:
            again = self._found(said.text)
            notes['cycle'] = _found(again) | dict(iou=iou(again.mask, region.mask))
            outlines += _outline(again)
        return Answer(notes, outlines)

    def sheet(self, answer: Answer) -> Image.Image:
        """The photograph as it is beside the same with the outlines of an answer."""
        return beside_outlined(self.image, answer.outlines)

    def _found(self, text: str) -> Prediction:
        (said, ), = self._predictor.segment([self.picture], [[text]], self.max_new_tokens)
        return said

    def _notes(self) -> dict[str, Any]:
        height, width = self.picture.size
        return dict(photo=self.name, width=width, height=height,
                    model={key: self.loaded.description[key] for key in ('name', 'fingerprint', 'dtype')})


def iou(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of two masks (H, W) bool that are not both empty."""
    return (one & other).sum().item() / (one | other).sum().item()


def of_mask(mask: torch.Tensor) -> dict[str, Any]:
    """``area`` in pixels, ``box`` (x, y, width, height), and ``rle``, COCO's compressed run lengths."""
    rle = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return dict(area=int(mask.sum()), box=[int(each) for each in coco.toBbox(rle)],
                rle=dict(size=rle['size'], counts=rle['counts'].decode('ascii')))


def _found(said: Prediction) -> dict[str, Any]:
    return dict(answer=said.text, ended=said.ended, has_seg=said.has_seg, mask=of_mask(said.mask))


def _outline(said: Prediction) -> list[Outline]:
    return [(said.mask, PREDICTED_COLOUR)] if said.mask.any() else []


def check_out(out: Path | None, command: str, *read: Path | None) -> Path:
    """Where the picture goes, refused before a model is loaded.

    Args:
        out: that the user asked for, or None.
        command: names the file otherwise.
        read: files of the user's, the photograph first; none of them is overwritten.

    Raises:
        ValueError: it is no PNG, or would take the place of a file that is read.
        CannotWrite: its folder cannot be written.
    """
    out = out or DEFAULT_OUT / f'{read[0].stem}_{command}.png'
    if out.suffix.lower() != '.png' or out.is_dir():
        raise ValueError(f'--out {out}: give a file that ends in .png; the JSON goes beside it')
    for given in filter(None, read):
        if any(each.exists() and given.exists() and each.samefile(given) for each in (out, out.with_suffix('.json'))):
            raise ValueError(f'--out {out} would overwrite {given}: give another file')
    with writing('the picture', out, 'Choose another --out'):
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(13, 'Permission denied', str(out.parent))
    return out


def write_answer(out: Path, picture: Image.Image, notes: Mapping[str, Any]) -> Path:
    """Write the picture and beside it the JSON, each whole or not at all; returns the path of the JSON."""
    beside, pixels = out.with_suffix('.json'), io.BytesIO()
    picture.save(pixels, 'PNG')
    text = json.dumps(dict(notes, picture=out.name), indent=1, ensure_ascii=False) + '\n'
    for path, content in ((out, pixels.getvalue()), (beside, text.encode())):
        partial = path.with_name(f'{path.name}.tmp')
        with writing('the answer', path, 'Choose another --out'):
            try:
                partial.write_bytes(content)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    return beside
