"""Referring expressions of RefCOCO, RefCOCO+ and RefCOCOg: their pickle files, read without running anything."""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llava_sam2.paths import resolve

VARIANTS = ('refcoco', 'refcoco+', 'refcocog')
_REF_KEYS = {'ref_id', 'ann_id', 'image_id', 'split', 'sentences'}
_SENTENCE_KEYS = {'sent', 'sent_id'}


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dictionaries, texts and numbers need no global; whatever names one could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f'it names {module}.{name}')


def load_refs(path: str | Path) -> list[dict[str, Any]]:
    """Read a ``refs(*.p)`` file: a dictionary per referred object, with ``ref_id, ann_id, image_id, split, sentences``.

    Raises:
        ValueError: not such a file, or one that would run code; none of it is run.
    """
    try:
        with open(path, 'rb') as stream:
            # The released files were written by Python 2.
            refs = _PlainUnpickler(stream, encoding='utf-8').load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f'{path} is refused: a file of referring expressions is a pickle of lists, dictionaries, '
                         f'texts and numbers only ({error}). Download it again from its publisher') from error
    if not isinstance(refs, list) or not all(map(_is_ref, refs)):
        raise ValueError(f'{path} is not a list of references with {", ".join(sorted(_REF_KEYS))}, each sentence with '
                         f'{" and ".join(sorted(_SENTENCE_KEYS))}. Download it again')
    return refs


def _is_ref(ref: Any) -> bool:
    return isinstance(ref, dict) and _REF_KEYS <= ref.keys() and all(
        isinstance(sentence, dict) and _SENTENCE_KEYS <= sentence.keys() for sentence in ref['sentences'])


def held_out_image_ids(data_root: str | Path, datasets: Iterable[str] = VARIANTS) -> list[int]:
    """COCO ids of the images in any split but 'train' of any variant and partition found below ``data_root``, sorted.

    They must not be trained on: a training image of one variant may be a test image of another.

    Raises:
        FileNotFoundError: none of the variants is there.
    """
    root = resolve(data_root)
    files = [file for dataset in datasets for file in sorted((root / dataset).glob('refs(*).p'))]
    if not files:
        raise FileNotFoundError(f'{root} holds none of {", ".join(datasets)} with a refs(*).p: check data_root')
    return sorted({ref['image_id'] for file in files for ref in load_refs(file) if ref['split'] != 'train'})


def load_instances(path: str | Path) -> dict[str, Any]:
    """Read a COCO ``instances.json``.

    Raises:
        ValueError: not such a file.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is not a JSON file: {error}. Download it again') from error
    if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
        raise ValueError(f'{path} is not a COCO file with images and annotations. Download it again')
    return content
