"""Writers of the five on-disk formats.

Each source is a pair of functions. ``write(folder, rngs, start, world)`` draws one scene per generator, writes its
files and returns plain records and what is in the scenes (``truth.py``); ``index(folder, records)`` writes the files
that list everything, from the records of all scenes. A scene depends on its own generator only, so any split of the
work gives the same bytes.
"""

import csv
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dual_loop.demo.masks import mask_box, mask_polygons, mask_rle
from dual_loop.demo.rendering import Drawn, draw_pair, draw_scene
from dual_loop.demo.shapes import SHAPES
from dual_loop.demo.truth import scene_truth
from dual_loop.demo.wording import RELATION_CHANCE, description_of, refer, sentence_form
from dual_loop.demo.world import World

JPEG_QUALITY = 92
FOLDER_SIZE = 1000  # files of one SA-V or SA-1B folder
OPEN_IMAGES_MASK_SCALE = 0.75  # Open Images stores masks smaller than their image
OPEN_IMAGES_LABELS = {shape: f'/m/0{1000 + k}' for k, shape in enumerate(SHAPES)}
CATEGORIES = {shape: k for k, shape in enumerate(SHAPES, start=1)}
REF_SPLITS = {1: 'val', 2: 'testA', 3: 'testB', 11: 'val'}  # by image index modulo 20; all others are 'train'
REFCOCOG_SPLITS = {number: 'test' if split != 'val' else split for number, split in REF_SPLITS.items()}
UNC_SPLITS = ('train', 'val', 'testA', 'testB')
MAX_SENTENCES = 3  # of one RefCOCO object
# First `img_id` of the splits that show COCO's pictures: never one of RefCOCO's.
DAM_IMAGE_IDS = {'COCOStuff': 10_000_000, 'LVIS': 20_000_000, 'PACO': 30_000_000}

Written = tuple[list, list[dict]]  # records for the listing, and what is in the scenes
Record = tuple[str, list[dict]]  # id of a Describe Anything entry and its regions
# Id of an entry, the objects that it describes, and its images, each with the end of its file name
Entry = tuple[str, Sequence[int], list[tuple[str, np.ndarray]]]


@dataclass(frozen=True)
class Source:
    """One data set of the demo.

    Attributes:
        number: part of the random key of its scenes; never reused, so sources share no scene.
        share: scenes as a share of the ``images`` asked for.
        folder: folder below the root.
        write: draws scenes, writes their files, returns their records.
        index: writes the listing files from all records; None where the format has none.
        by_default: whether it is made unless asked for by its own name.
        splits: which splits it has, one for each image; none where the format knows no splits.
    """

    number: int
    share: float
    folder: str
    write: Callable
    index: Callable | None = None
    by_default: bool = True
    splits: tuple[str, ...] = ()


def write_sav(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World) -> Written:
    """SA-V pairs of one object: uint8 ``frame1``, ``frame2`` (H, W, 3) RGB and ``mask1``, ``mask2`` (H, W) 0 or 255."""
    scenes = []
    for number, rng in enumerate(rngs, start):
        first, second = draw_pair(rng, world)
        target = int(rng.integers(len(first.masks)))
        mask1, mask2 = (drawn.masks[target] * np.uint8(255) for drawn in (first, second))
        name = f'sav_{number // FOLDER_SIZE:06d}/masklet_data_{number:05d}'
        path = _prepared(folder / f'{name}.npz')
        # As np.savez_compressed, at the fastest level: the default one takes longer than all the drawing.
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, array in dict(frame1=first.image, mask1=mask1, frame2=second.image, mask2=mask2).items():
                with archive.open(f'{key}.npy', 'w', force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        scenes.append(scene_truth(number, world, first, {target: name}))
    return [], scenes


def write_sa1b(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World) -> Written:
    """SA-1B release layout: sa_N.jpg and sa_N.json with compressed run lengths."""
    scenes = []
    for number, rng in enumerate(rngs, start + 1):
        drawn = draw_scene(rng, world)
        scene, image, masks, _ = drawn
        annotations = []
        for k, mask in enumerate(masks):
            row, column = np.argwhere(mask)[mask.sum() // 2]
            annotations.append(dict(
                id=number * 100 + k, segmentation=mask_rle(mask), area=int(mask.sum()), bbox=mask_box(mask),
                crop_box=[0, 0, scene.width, scene.height], point_coords=[[float(column), float(row)]],
                predicted_iou=round(float(rng.uniform(0.88, 1)), 4),
                stability_score=round(float(rng.uniform(0.92, 1)), 4)))
        info = dict(image_id=number, width=scene.width, height=scene.height, file_name=f'sa_{number}.jpg')
        path = _prepared(folder / f'sa_{number // FOLDER_SIZE:06d}' / f'sa_{number}.jpg')
        path.write_bytes(_jpeg(image))
        path.with_suffix('.json').write_text(json.dumps(dict(image=info, annotations=annotations)))
        scenes.append(scene_truth(number, world, drawn, {k: f'sa_{number}_{each["id"]}'
                                                         for k, each in enumerate(annotations)}))
    return [], scenes


def write_openimages(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World) -> Written:
    """Open Images v7 images and mask files; records are the rows of the annotation table."""
    rows, scenes = [], []
    for number, rng in enumerate(rngs, start):
        drawn = draw_scene(rng, world)
        scene, image, masks, _ = drawn
        names = {}
        image_id = f'{number:016x}'
        _prepared(folder / 'images' / 'train' / f'{image_id}.jpg').write_bytes(_jpeg(image))
        stored_size = [round(side * OPEN_IMAGES_MASK_SCALE) for side in (scene.width, scene.height)]
        for k, (item, mask) in enumerate(zip(scene.objects, masks)):
            label, box_id = OPEN_IMAGES_LABELS[item.shape], f'{number * 16 + k:08x}'
            name = f'{image_id}_{label.strip("/").replace("/", "")}_{box_id}.png'
            smaller = cv2.resize(mask * np.uint8(255), stored_size, interpolation=cv2.INTER_AREA) > 127
            Image.fromarray(smaller).save(_prepared(folder / 'masks' / 'train' / name))
            x, y, width, height = mask_box(mask)
            names[k] = name.removesuffix('.png')
            rows.append(dict(
                MaskPath=name, ImageID=image_id, LabelName=label, BoxID=box_id,
                BoxXMin=round(x / scene.width, 6), BoxXMax=round((x + width) / scene.width, 6),
                BoxYMin=round(y / scene.height, 6), BoxYMax=round((y + height) / scene.height, 6),
                PredictedIoU=round(float(rng.uniform(0.8, 1)), 5), Clicks=''))
        scenes.append(scene_truth(number, world, drawn, names))
    return rows, scenes


def index_openimages(folder: Path, rows: list[dict]) -> None:
    """The annotation table and the names of the labels."""
    names = [dict(LabelName=label, DisplayName=shape.capitalize()) for shape, label in OPEN_IMAGES_LABELS.items()]
    for name, table in (('train-annotations-object-segmentation.csv', rows), ('oidv7-class-descriptions.csv', names)):
        with open(folder / name, 'w', newline='') as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator='\n')
            writer.writeheader()
            writer.writerows(table)


def write_refcoco(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World, split: str | None = None,
                  splits: Mapping[int, str] = REF_SPLITS, relation_chance: float = RELATION_CHANCE) -> Written:
    """COCO-named images; one record {image, annotations, refs} per scene, all in ``split`` or by ``splits``.

    Beyond the public format an annotation has ``attributes`` and a sentence has ``kind``, 'attribute' or 'relation'. In
    ``scenes.jsonl`` an object is named by its image and the number of its annotation: '{image}_{ann_id}'.
    """
    records, scenes = [], []
    for number, rng in enumerate(rngs, start):
        drawn = draw_scene(rng, world)
        scene, image, masks, _ = drawn
        image_id, name = number + 1, f'COCO_train2014_{number + 1:012d}'
        _prepared(folder / 'coco2014' / 'train2014' / f'{name}.jpg').write_bytes(_jpeg(image))
        annotations, refs = [], []
        for k, (item, mask) in enumerate(zip(scene.objects, masks)):
            ann_id, ids = number * 10 + k + 1, dict(image_id=image_id, category_id=CATEGORIES[item.shape])
            annotations.append(dict(
                id=ann_id, **ids, iscrowd=0, area=float(mask.sum()), bbox=[float(v) for v in mask_box(mask)],
                segmentation=mask_polygons(mask), attributes=asdict(item)))
            written = {}
            for _ in range(int(rng.integers(1, MAX_SENTENCES + 1))):
                sentence = refer(rng, scene, k, relation_chance)
                written[sentence.text] = sentence.kind
            sentences = [dict(raw=sentence_form(text), sent=text, tokens=text.split(), kind=kind)
                         for text, kind in written.items()]
            refs.append(dict(ann_id=ann_id, **ids, split=split or splits.get(number % 20, 'train'),
                             file_name=f'{name}_{ann_id}.jpg', sentences=sentences))
        info = dict(id=image_id, file_name=f'{name}.jpg', height=scene.height, width=scene.width, license=1)
        records.append(dict(image=info, annotations=annotations, refs=refs))
        scenes.append(scene_truth(number, world, drawn, {k: f'{name}_{each["id"]}'
                                                         for k, each in enumerate(annotations)}))
    return records, scenes


def index_refcoco(folder: Path, records: list[dict], split_by: str = 'unc') -> None:
    """instances.json and refs({split_by}).p; references and sentences are numbered in order."""
    refs, sentences = [ref for record in records for ref in record['refs']], 0
    for ref_id, ref in enumerate(refs):
        ref['ref_id'] = ref_id
        ref['sent_ids'] = list(range(sentences, sentences + len(ref['sentences'])))
        sentences += len(ref['sentences'])
        for sent_id, sentence in zip(ref['sent_ids'], ref['sentences']):
            sentence['sent_id'] = sent_id
    instances = dict(
        info=dict(description='Synthetic scenes'), licenses=[dict(id=1, name='Apache-2.0', url='')],
        images=[record['image'] for record in records],
        annotations=[annotation for record in records for annotation in record['annotations']],
        categories=[dict(id=k, name=shape, supercategory='shape') for shape, k in CATEGORIES.items()])
    (folder / 'instances.json').write_text(json.dumps(instances))
    (folder / f'refs({split_by}).p').write_bytes(_pickled(refs))


def write_dam_by_image(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World, split: str
                       ) -> Written:
    """Describe Anything, one entry per image with all of its regions."""
    def draw(number: int, rng: np.random.Generator) -> tuple[Drawn, list[Entry]]:
        drawn = draw_scene(rng, world)
        return drawn, [(f'{split.lower()}_{number}', range(len(drawn.masks)), [('.jpg', drawn.image)])]

    return _write_dam(folder, rngs, start, world, split, draw)


def write_dam_by_region(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World, split: str
                        ) -> Written:
    """Describe Anything, one entry per region: two entries repeat one image."""
    def draw(number: int, rng: np.random.Generator) -> tuple[Drawn, list[Entry]]:
        drawn = draw_scene(rng, world)
        return drawn, [(f'{split.lower()}_{number * 10 + k}', [k], [('.jpg', drawn.image)]) for k in range(2)]

    return _write_dam(folder, rngs, start, world, split, draw)


def write_dam_sav(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World) -> Written:
    """Describe Anything, one entry per clip of two frames named {id}.{t}.jpg; mask and caption belong to frame 0."""
    def draw(number: int, rng: np.random.Generator) -> tuple[Drawn, list[Entry]]:
        first, second = draw_pair(rng, world)
        target = int(rng.integers(len(first.masks)))
        return first, [(f'sav_{number}', [target], [('.0.jpg', first.image), ('.1.jpg', second.image)])]

    return _write_dam(folder, rngs, start, world, 'SAV', draw)


def index_dam(folder: Path, records: list[Record]) -> None:
    """annotations.json: id -> list of regions."""
    (folder / 'annotations.json').write_text(json.dumps(dict(records)))


def _write_dam(folder: Path, rngs: Sequence[np.random.Generator], start: int, world: World, split: str,
               draw: Callable[[int, np.random.Generator], tuple[Drawn, list[Entry]]]) -> Written:
    """One tar of images and pickled regions for these scenes; records are (id, regions)."""
    records: list[Record] = []
    scenes = []
    with tarfile.open(_prepared(folder / 'images' / f'{start:08d}.tar'), 'w', format=tarfile.USTAR_FORMAT) as archive:
        for number, rng in enumerate(rngs, start):
            drawn, entries = draw(number, rng)
            names: dict[int, str] = {}
            for entry, objects, frames in entries:
                regions = [_region(rng, drawn, k, split, number) for k in objects]
                names |= {k: f'{entry}_{position}' for position, k in enumerate(objects)}
                members = [(entry + suffix, _jpeg(frame)) for suffix, frame in frames]
                for name, data in [*members, (f'{entry}.pickle', _pickled(regions))]:
                    member = tarfile.TarInfo(name)  # modification time 0
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                records.append((entry, regions))
            scenes.append(scene_truth(number, world, drawn, names))
    return records, scenes


def _region(rng: np.random.Generator, drawn: Drawn, target: int, split: str, number: int) -> dict:
    region = dict(caption=description_of(rng, drawn.scene, target).text, kind='description',
                  mask_rle=mask_rle(drawn.masks[target]))
    return dict(region, img_id=DAM_IMAGE_IDS[split] + number) if split in DAM_IMAGE_IDS else region


def _pickled(data: list) -> bytes:
    # Pickle stores an equal string once or twice by its identity; fresh strings give the same bytes in any process.
    return pickle.dumps(json.loads(json.dumps(data)), protocol=2)


def _jpeg(image: np.ndarray) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    encoded, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    if not encoded:
        raise RuntimeError(f'OpenCV could not encode an image of shape {image.shape} as JPEG')
    return data.tobytes()


def _prepared(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


SOURCES = {
    'sav': Source(1, 1, 'sav', write_sav),
    'sa1b': Source(2, 1, 'sa1b', write_sa1b),
    'openimages': Source(3, 1, 'openimages', write_openimages, index_openimages),
    'refcoco': Source(4, 1, 'ref_seg/refcoco', write_refcoco, index_refcoco, splits=UNC_SPLITS),
    'dam_COCOStuff': Source(5, 0.5, 'dam/COCOStuff', partial(write_dam_by_image, split='COCOStuff'), index_dam),
    'dam_LVIS': Source(6, 0.25, 'dam/LVIS', partial(write_dam_by_region, split='LVIS'), index_dam),
    'dam_SAV': Source(7, 0.25, 'dam/SAV', write_dam_sav, index_dam),
    # What the real mixture has beyond these. 8 is the tokenizer's corpus.
    'dam_Mapillary': Source(9, 0.25, 'dam/Mapillary', partial(write_dam_by_image, split='Mapillary'), index_dam, False),
    'dam_OpenImages': Source(10, 0.25, 'dam/OpenImages', partial(write_dam_by_region, split='OpenImages'), index_dam,
                             False),
    'dam_PACO': Source(11, 0.25, 'dam/PACO', partial(write_dam_by_region, split='PACO'), index_dam, False),
    # RefCOCO+ says nothing of where things are; RefCOCOg has one test split and its own partition.
    'refcoco+': Source(12, 1, 'ref_seg/refcoco+', partial(write_refcoco, relation_chance=0), index_refcoco, False,
                       UNC_SPLITS),
    'refcocog': Source(13, 1, 'ref_seg/refcocog', partial(write_refcoco, splits=REFCOCOG_SPLITS),
                       partial(index_refcoco, split_by='umd'), False, ('train', 'val', 'test')),
}
