"""A COCO file of pictures and annotations, by their ids; every join of the two checks both sides."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .exclusion import coco_file_number
from .json_files import RepeatedKeys
from .quarantine import BadSample
from .refs import has_fields
from .texts import is_file_name


class Instances:
    """What a COCO ``instances.json`` lists.

    Args:
        content: as ``load_instances`` gives it.

    Attributes:
        annotations, images: entries by id. Of several that have one id and differ, none is there.
    """

    def __init__(self, content: dict[str, list]):
        self._problems: dict[str, dict[int, str]] = dict(annotations={}, images={})
        self._unnamed: dict[str, list[int]] = dict(annotations=[], images=[])
        self.annotations = self._by_id('annotations', content['annotations'])
        self.images = self._by_id('images', content['images'])
        for names in _repeated_files(self.images.values()):
            for number in names:
                others = ', '.join(str(other) for other in names if other != number)
                self._problems['images'][number] = f'has the file_name of image {others}'

    def join(self, annotation_id: int, image_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """An annotation and its image, as a reference names them; the image is named as a file without folders.

        Raises:
            BadSample: they are not listed, contradict each other or themselves, or cannot be used.
        """
        annotation, image = self.pair(annotation_id, image_id)
        name = image.get('file_name')
        if not is_file_name(name):
            raise BadSample(f'image {image_id} has no plain file_name')
        if (number := coco_file_number(name)) not in (None, image_id):
            raise BadSample(f'image {image_id} has the file_name of image {number}, {name}')
        return annotation, image

    def pair(self, annotation_id: int, image_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """An annotation and its image, whatever the name of that. Raises ``BadSample`` as ``join`` does."""
        annotation = self._entry('annotations', annotation_id)
        image = self._entry('images', image_id)
        if (its := annotation.get('image_id', image_id)) != image_id:
            its = its if isinstance(its, int) else 'that is no number'
            raise BadSample(f'annotation {annotation_id} belongs to image {its}, the reference to image {image_id}')
        if not is_segmentation(annotation.get('segmentation')):
            raise BadSample(f'annotation {annotation_id} has no usable segmentation')
        return annotation, image

    def _entry(self, kind: str, number: int) -> dict[str, Any]:
        if problem := self._problems[kind].get(number):
            raise BadSample(f'{kind[:-1]} {number} {problem}')
        entry = getattr(self, kind).get(number)
        if entry is None:
            unnamed = self._unnamed[kind]
            more = f', but {len(unnamed)} have no usable id, the first is {kind}[{unnamed[0]}]' if unnamed else ''
            raise BadSample(f'{kind[:-1]} {number} is not listed{more}')
        return entry

    def _by_id(self, kind: str, entries: list) -> dict[int, dict]:
        found: dict[int, dict] = {}
        for position, entry in enumerate(entries):
            if not has_fields(entry, dict(id=int)):
                self._unnamed[kind].append(position)
                continue
            number = entry['id']
            if isinstance(entry, RepeatedKeys):
                self._problems[kind][number] = f'has the key {min(entry.repeated)!r} twice'
            elif number in found and _differ(found[number], entry):
                self._problems[kind][number] = 'is listed twice, with different content'
            found.setdefault(number, entry)
        return {number: entry for number, entry in found.items() if number not in self._problems[kind]}


def shared_ids(ids: Mapping[int, int], entries: Sequence) -> dict[int, int]:
    """Which entries of a list cannot be told by their ids: position -> another one of the same id. All that share an id
    if they differ; else all but the first.

    Args:
        ids: position -> id, of those that have one.
        entries: the list.
    """
    positions: dict[int, list[int]] = {}
    for position, number in ids.items():
        positions.setdefault(number, []).append(position)
    found: dict[int, int] = {}
    for first, *others in positions.values():
        found |= dict.fromkeys(others, first)
        if any(_differ(entries[first], entries[other]) for other in others):
            found[first] = others[0]
    return found


def _differ(entry: object, other: object) -> bool:
    try:
        return entry != other
    except RecursionError:  # what is nested so deeply is none of the fields that are used
        return True


def is_segmentation(value: object) -> bool:
    """Polygons or a run-length code as far as they can be stored; whether they can be drawn shows when they are."""
    if isinstance(value, RepeatedKeys):
        return False
    if isinstance(value, dict):
        value = [value.get('size'), value['counts'] if isinstance(value.get('counts'), list) else []]
    return isinstance(value, list) and not any(
        isinstance(part, dict) or isinstance(part, list) and any(isinstance(each, (list, dict)) for each in part)
        for part in value)


def _repeated_files(images: Iterable[dict]) -> list[list[int]]:
    """The ids of images that have the same file."""
    by_file: dict[str, list[int]] = {}
    for image in images:
        if isinstance(image.get('file_name'), str):
            by_file.setdefault(image['file_name'], []).append(image['id'])
    return [numbers for numbers in by_file.values() if len(numbers) > 1]
