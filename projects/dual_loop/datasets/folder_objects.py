"""The objects of a folder of one's own, from its mask pictures or from a file of COCO, before captions are added."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .folder_layout import (
    IMAGE_SUFFIXES,
    IMAGES,
    MASK_SUFFIXES,
    MASKS,
    RULE,
    Files,
    called,
    list_files,
    nearest,
    normal,
    picture_of,
    stem,
)
from .instances import Instances
from .label_images import LabelledPicture, read_objects
from .lengths import numbers_or_nan
from .parallel import map_in_order
from .quarantine import BadSample
from .refs import has_fields, load_instances
from .texts import is_text

_REMEDY = 'Export it as COCO instance segmentation again'
#: Called with a name in the folder, the file and what is wrong; the name says to which part of the data that belongs.
Note = Callable[[str, str | Path, str], None]


@dataclass
class FolderObject:
    """One object of a picture.

    Attributes:
        name: unique in the folder; captions and samples are called by it.
        picture: name of its picture.
        aliases: other names for it.
        mask, level: of a mask picture, see ``read_object``; '' and 0 if it comes from a COCO file.
        segmentation: of a COCO file, as json; else ''.
        category: of a COCO file; else ''.
        box: width, height and area, and width and height of the picture, in pixels; NaN where unknown.
        sentences: about it.
    """

    name: str
    picture: str
    aliases: list[str] = field(default_factory=list)
    mask: str = ''
    level: int = 0
    segmentation: str = ''
    category: str = ''
    box: tuple[float, ...] = ()
    sentences: list[str] = field(default_factory=list)


def objects_of_masks(root: Path, names: list[str], pictures: Files, kind: str, note: Note, title: str
                     ) -> list[FolderObject]:
    """The objects of the mask pictures ``names``, relative to ``root/masks``; ``kind`` as in ``read_objects``."""
    masks = list_files(names, MASK_SUFFIXES)
    for path in masks.others:
        note(path, root / MASKS / path, f'no mask: save it as one of {" ".join(MASK_SUFFIXES)} (JPEG blurs outlines)')
    for name, paths in masks.twins.items():
        note(name, root / MASKS, f'several masks have this name, {", ".join(paths)}: rename all but one')
    belongs: dict[str, str] = {}
    for name, path in masks.paths.items():
        picture = picture_of(name, pictures.paths.keys() | pictures.twins.keys())
        if picture is None:
            note(name, root / MASKS / path,
                 f'no picture in {IMAGES} has the name of this mask{nearest(name, pictures.paths)}: {RULE}')
        elif picture in pictures.twins:
            note(picture, root / MASKS / path, f'several pictures have the name of this mask, '
                 f'{", ".join(pictures.twins[picture])}: rename all but one, with their masks')
        else:
            belongs[name] = picture
    read = partial(_read, root / MASKS, kind)
    found: list[FolderObject] = []
    for (name, picture), (labelled, problem) in zip(belongs.items(), map_in_order(
            read, [masks.paths[name] for name in belongs], f'masks of {title}', unit='masks')):
        path = masks.paths[name]
        for each in problem:
            note(picture, root / MASKS / path, each)
        found += _of_mask(name, path, picture, labelled) if labelled else []
    return found


def _read(folder: Path, kind: str, path: str) -> tuple[LabelledPicture | None, list[str]]:
    try:
        labelled = read_objects(folder / path, kind)
    except BadSample as error:
        return None, [error.reason]
    return labelled, labelled.problems


def _of_mask(name: str, path: str, picture: str, labelled: LabelledPicture) -> Iterator[FolderObject]:
    suffix = Path(path).suffix
    single = len(labelled.objects) == 1 and not labelled.problems
    for each in labelled.objects:
        number = '' if single else f':{each.level}'
        yield FolderObject(f'{name}{number}', picture, [f'{name}{suffix}{number}'], path,
                           each.level,
                           box=(each.width, each.height, each.area, labelled.width, labelled.height))


def objects_of_coco(file: Path, pictures: Files, note: Note) -> tuple[list[FolderObject], int]:
    """The objects of a COCO file, and how many of its annotations outline a crowd, which is no object.

    An annotation may have a ``caption``, a text or a list of texts.
    """
    content = load_instances(file, _REMEDY)
    instances = Instances(content)
    categories = content.get('categories')
    labels = {each['id']: each['name'] for each in (categories if isinstance(categories, list) else ())
              if has_fields(each, dict(id=int, name=str)) and is_text(each['name'])}
    names = {normal(path): name for name, path in pictures.paths.items()}
    found: dict[int, FolderObject] = {}
    crowds = 0
    for position, entry in enumerate(content['annotations']):
        place = f'annotations[{position}]'
        if not has_fields(entry, dict(id=int, image_id=int)):
            note(place, file, f'{place} has no id and image_id that are whole numbers from 0')
            continue
        if entry.get('iscrowd'):
            crowds += 1
            continue
        try:
            annotation, image = instances.pair(entry['id'], entry['image_id'])
        except BadSample as error:
            note(f'annotation {entry["id"]}', file, error.reason)
            continue
        if entry['id'] in found:
            continue  # once more the same: ``pair`` refuses what differs
        said = image.get('file_name')
        picture = called(names, said) if is_text(said) else None
        if picture is None:
            note(f'annotation {entry["id"]}', file, f'image {image["id"]} has file_name {said!r}, which is not in '
                 f'{IMAGES}{nearest(str(said), names)}')
        elif not annotation['segmentation']:
            note(picture, file, f'annotation {entry["id"]} has no outline, at most a box: outline the object')
        else:
            found[entry['id']] = _of_annotation(annotation, image, picture, labels, partial(note, picture, file))
    return list(found.values()), crowds


def _of_annotation(annotation: dict[str, Any], image: dict[str, Any], picture: str, labels: dict[int, str],
                   wrong: Callable[[str], None]) -> FolderObject:
    *_, width, height = numbers_or_nan(annotation.get('bbox'), 4)
    sizes = numbers_or_nan([annotation.get('area'), image.get('width'), image.get('height')], 3)
    said = annotation.get('caption', [])
    sentences = []
    for each in said if isinstance(said, list) else [said]:
        if is_text(each):
            sentences.append(' '.join(each.split()))
        elif each is not None:
            wrong(f'annotation {annotation["id"]} has an empty caption, or one that is no text')
    category = annotation.get('category_id')
    return FolderObject(f'{picture}:{annotation["id"]}', picture, segmentation=json.dumps(annotation['segmentation']),
                        category=labels.get(category, '') if isinstance(category, int) else '',
                        box=(width, height, *sizes), sentences=sentences)


class Meant(NamedTuple):
    """What a name in a file of captions means.

    Attributes:
        objects: that it may mean; a caption is of one. None and no problem: of a mask that cannot be used, which is
            written down already.
        picture: that it belongs to; the name itself where there is none.
        problem: what is wrong with the name; '' if nothing is.
        known: whether there is a picture or mask of that name.
    """

    objects: list[FolderObject]
    picture: str
    problem: str = ''
    known: bool = True


class Names:
    """The names of objects, of the mask pictures ``masks`` (relative paths), usable or not, and of pictures."""

    def __init__(self, objects: list[FolderObject], pictures: Files, masks: list[str]):
        self._objects = {normal(name): each for each in objects for name in (*each.aliases, each.name)}
        self._of_picture: dict[str, list[FolderObject]] = {}
        self._of_mask: dict[str, list[FolderObject]] = {}
        for each in objects:
            self._of_picture.setdefault(each.picture, []).append(each)
            self._of_mask.setdefault(each.mask, []).append(each)
        self._masks = {normal(name): path for path in masks
                       for name in (path, stem(path, (*MASK_SUFFIXES, *IMAGE_SUFFIXES)))}
        self._pictures = {normal(path): name for name, path in pictures.paths.items()}
        self._pictures |= {normal(path): name for name, paths in pictures.twins.items() for path in paths}
        self._pictures |= {name: name for name in (*pictures.paths, *pictures.twins)}

    def meant(self, name: str) -> Meant:
        """What ``name`` means."""
        if found := called(self._objects, name):
            return Meant([found], found.picture)
        whole, _, number = name.rpartition(':')
        for said in (name, whole) if number.isdecimal() else (name, ):
            mask, picture = called(self._masks, said), called(self._pictures, said)
            if mask is None and picture is None:
                continue
            objects = self._of_picture.get(picture or '', []) if mask is None else self._of_mask.get(mask, [])
            if not objects and mask is not None:
                return Meant([], picture or said)
            choice = ', '.join(each.name for each in objects[:5])
            if said != name:
                problem = f'{name!r} is no object that can be used' + (f': name one of {choice}' if choice else '')
            elif not objects:
                problem = f'the picture {name!r} has no mask that can be used'
            else:
                problem = f'{name!r} has {len(objects)} objects: name one of {choice}' if len(objects) > 1 else ''
            return Meant(objects, objects[0].picture if objects else picture or said, problem)
        return Meant([], name, f'{name!r} is neither a mask nor a picture here', known=False)

    def without_captions(self, captioned: list[FolderObject]) -> list[str]:
        """The names of objects and pictures that no caption means, which a misspelt one may mean."""
        taken = {id(each) for each in captioned}
        free = [each.name for each in self._objects.values() if id(each) not in taken]
        return free + [name for name in self._pictures.values()
                       if not any(id(each) in taken for each in self._of_picture.get(name, []))]
