"""All five formats read back with plain libraries."""

import csv
import io
import json
import pickle
import tarfile
from collections import defaultdict
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from dual_loop.demo.generation import scene_rng
from dual_loop.demo.masks import mask_polygons
from dual_loop.demo.rendering import draw_pair, draw_scene

from .plain_reader import description_matches, expression_matches


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f'{module}.{name}')


def unpickled(data):
    return PlainUnpickler(io.BytesIO(data)).load()


def read_image(path_or_bytes):
    return np.array(Image.open(io.BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else path_or_bytes))


def assert_looks_like(stored, drawn):
    """JPEG changes pixels a little."""
    assert stored.shape == drawn.shape
    assert np.abs(stored.astype(int) - drawn).mean() < 6


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_sav_pairs(demo_root):
    paths = sorted(demo_root.glob('sav/**/masklet_data_*.npz'))
    assert len(paths) == 24
    for index, path in enumerate(paths[:5]):
        (_, frame1, masks1, _), (_, frame2, masks2, _) = draw_pair(scene_rng(3, 'sav', index))
        with np.load(path, allow_pickle=False) as pair:
            assert set(pair.files) == {'frame1', 'mask1', 'frame2', 'mask2'}
            assert all(pair[name].dtype == np.uint8 for name in pair.files)
            assert np.array_equal(pair['frame1'], frame1) and np.array_equal(pair['frame2'], frame2)
            assert set(np.unique(pair['mask1'])) == set(np.unique(pair['mask2'])) == {0, 255}
            target, = [k for k, mask in enumerate(masks1) if np.array_equal(mask, pair['mask1'] > 0)]
            assert np.array_equal(pair['mask2'] > 0, masks2[target])


def test_sa1b(demo_root):
    paths = sorted(demo_root.glob('sa1b/sa_*/sa_*.json'), key=lambda path: int(path.stem[3:]))
    assert len(paths) == 24
    for index, path in enumerate(paths[:8]):
        _, drawn, masks, _ = draw_scene(scene_rng(3, 'sa1b', index))
        content = json.loads(path.read_text())
        image = read_image(path.parent / content['image']['file_name'])
        assert_looks_like(image, drawn)
        assert (content['image']['height'], content['image']['width']) == image.shape[:2]
        assert len(content['annotations']) == len(masks)
        for annotation, mask in zip(content['annotations'], masks):
            decoded = coco_mask.decode(annotation['segmentation']) > 0
            assert np.array_equal(decoded, mask) and annotation['area'] == mask.sum()
            assert annotation['bbox'] == coco_mask.toBbox(annotation['segmentation']).tolist()
            (x, y), = annotation['point_coords']
            assert mask[int(y), int(x)]
            assert 0.8 < annotation['predicted_iou'] <= 1 and 0.9 < annotation['stability_score'] <= 1


def test_sa1b_has_the_fields_of_the_real_release(demo_root, real_samples):
    real = json.loads(next(real_samples.glob('sa1b/sa_*/*.json')).read_text())
    demo = json.loads(next(demo_root.glob('sa1b/sa_*/*.json')).read_text())
    assert set(demo['image']) == set(real['image']) and set(demo['annotations'][0]) == set(real['annotations'][0])


def test_openimages(demo_root):
    folder = demo_root / 'openimages'
    with open(folder / 'train-annotations-object-segmentation.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    with open(folder / 'oidv7-class-descriptions.csv', newline='') as file:
        names = {entry['LabelName']: entry['DisplayName'] for entry in csv.DictReader(file)}
    by_image = defaultdict(list)
    for entry in rows:
        by_image[entry['ImageID']].append(entry)
    assert len(by_image) == 24 and len({entry['MaskPath'] for entry in rows}) == len(rows)
    for index in range(6):
        scene, drawn, masks, _ = draw_scene(scene_rng(3, 'openimages', index))
        image_id = f'{index:016x}'
        assert_looks_like(read_image(folder / 'images' / 'train' / f'{image_id}.jpg'), drawn)
        labels = [names[entry['LabelName']] for entry in by_image[image_id]]
        assert labels == [item.shape.capitalize() for item in scene.objects]
        for entry, mask in zip(by_image[image_id], masks):
            stored = Image.open(folder / 'masks' / 'train' / entry['MaskPath'])
            assert stored.size[0] < scene.width and stored.size[1] < scene.height
            assert iou(np.array(stored.convert('L').resize(mask.shape[::-1])) > 127, mask) > 0.85
            rows_on, columns_on = np.nonzero(mask)
            box = [float(entry[key]) for key in ('BoxXMin', 'BoxXMax', 'BoxYMin', 'BoxYMax')]
            assert box == pytest.approx([columns_on.min() / scene.width, (columns_on.max() + 1) / scene.width,
                                         rows_on.min() / scene.height, (rows_on.max() + 1) / scene.height], abs=1e-6)


def test_openimages_has_the_columns_of_the_real_table(demo_root, real_samples):
    name = 'openimages/train-annotations-object-segmentation.csv'
    first = [(root / name).read_text().partition('\n')[0].strip() for root in (demo_root, real_samples)]
    assert first[0] == first[1]


@pytest.fixture(scope='module')
def refcoco(demo_root):
    folder = demo_root / 'ref_seg' / 'refcoco'
    return folder, COCO(str(folder / 'instances.json')), unpickled((folder / 'refs(unc).p').read_bytes())


def test_refcoco_masks_and_images(refcoco):
    folder, coco, refs = refcoco
    for index in range(12):
        scene, drawn, masks, _ = draw_scene(scene_rng(3, 'refcoco', index))
        info = coco.loadImgs(index + 1)[0]
        assert_looks_like(read_image(folder / 'coco2014' / 'train2014' / info['file_name']), drawn)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=index + 1))
        assert [a['attributes'] for a in annotations] == json.loads(json.dumps([asdict(o) for o in scene.objects]))
        for annotation, mask in zip(annotations, masks):
            assert coco.cats[annotation['category_id']]['name'] == annotation['attributes']['shape']
            assert isinstance(annotation['segmentation'], list), 'loaders of RefCOCO read only polygons'
            assert iou(coco.annToMask(annotation) > 0, mask) > 0.97
            assert annotation['area'] == mask.sum()
    assert {ref['ann_id'] for ref in refs} == set(coco.anns)


def test_refcoco_sentences_mean_their_object(refcoco):
    _, coco, refs = refcoco
    kinds = []
    for ref in refs:
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=ref['image_id']))
        things = [annotation['attributes'] for annotation in annotations]
        for sentence in ref['sentences']:
            match, = expression_matches(sentence['sent'], things)
            assert annotations[match]['id'] == ref['ann_id'], sentence
            assert sentence['sent'] == sentence['raw'].lower().rstrip('.') == ' '.join(sentence['tokens'])
            kinds.append(sentence['kind'])
    assert set(kinds) == {'attribute', 'relation'} and kinds.count('attribute') > kinds.count('relation')


def test_refcoco_splits_share_no_image(refcoco):
    _, coco, refs = refcoco
    images = defaultdict(set)
    for ref in refs:
        images[ref['split']].add(ref['image_id'])
    assert set(images) == {'train', 'val', 'testA', 'testB'}
    assert sum(len(ids) for ids in images.values()) == len(set().union(*images.values())) == len(coco.imgs)
    assert len(images['train']) > len(coco.imgs) / 2


def test_refcoco_numbers_are_unique_and_complete(refcoco, real_samples):
    _, coco, refs = refcoco
    assert [ref['ref_id'] for ref in refs] == list(range(len(refs)))
    sent_ids = [sentence['sent_id'] for ref in refs for sentence in ref['sentences']]
    assert sent_ids == list(range(len(sent_ids))) == [number for ref in refs for number in ref['sent_ids']]
    real = unpickled((real_samples / 'ref_seg/refcoco/refs(unc).p').read_bytes())[0]
    assert set(refs[0]) == set(real) and set(refs[0]['sentences'][0]) - {'kind'} == set(real['sentences'][0])


@pytest.mark.parametrize('split, first_image', [('COCOStuff', 10_000_000), ('LVIS', 20_000_000), ('SAV', None)])
def test_describe_anything(demo_root, refcoco, split, first_image):
    folder = demo_root / 'dam' / split
    annotations = json.loads((folder / 'annotations.json').read_text())
    members = {}
    for path in sorted(folder.glob('images/*.tar')):
        with tarfile.open(path) as archive:
            members.update({member.name: archive.extractfile(member).read() for member in archive})
    assert {name.removesuffix('.pickle') for name in members if name.endswith('.pickle')} == set(annotations)
    for entry, regions in annotations.items():
        index = int(entry.split('_')[1]) // (10 if split == 'LVIS' else 1)
        rng = scene_rng(3, f'dam_{split}', index)
        scene, drawn, masks, _ = draw_pair(rng)[0] if split == 'SAV' else draw_scene(rng)
        names = [f'{entry}.0.jpg', f'{entry}.1.jpg'] if split == 'SAV' else [f'{entry}.jpg']
        assert_looks_like(read_image(members[names[0]]), drawn)
        assert all(read_image(members[name]).shape == drawn.shape for name in names)
        assert unpickled(members[f'{entry}.pickle']) == regions
        things = [asdict(item) for item in scene.objects]
        for region in regions:
            target, = description_matches(region['caption'], scene.background, things)
            assert np.array_equal(coco_mask.decode(region['mask_rle']) > 0, masks[target])
            assert region.get('img_id') == (None if first_image is None else first_image + index)
            assert region.get('img_id') not in refcoco[1].imgs
    if split == 'COCOStuff':
        assert max(len(regions) for regions in annotations.values()) > 2


def test_polygons_keep_parts_and_holes():
    mask = np.zeros((40, 60), bool)
    mask[5:30, 5:30] = True
    mask[10:15, 10:25] = mask[20:26, 8:12] = False
    mask[8:20, 40:55] = True
    polygons = mask_polygons(mask)
    assert len(polygons) == 2
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 60))
    assert iou(coco_mask.decode(rle) > 0, mask) > 0.98
