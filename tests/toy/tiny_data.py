"""Tiny data in every on-disk format, written on the fly: one picture of 48 x 64 pixels with two rectangles."""

import csv
import io
import json
import pickle
import tarfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

__all__ = ['dam_root', 'demo_root', 'openimages_root', 'refcoco_root', 'sa1b_root', 'sav_root', 'shown_number', 'small',
           'tiny', 'write_tar', 'write_video']

HEIGHT, WIDTH = 48, 64
BOXES = {1: (4, 6, 20, 30), 2: (30, 10, 24, 20)}  # object -> x, y, width, height


def rectangle(box):
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y:y + height, x:x + width] = True
    return mask


def rle(mask):
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(code['size']), counts=code['counts'].decode())


def jpeg(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=95, **options)
    return stream.getvalue()


def picture():
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([xs * 4, ys * 5, (xs + ys) * 2], -1).astype(np.uint8)


@pytest.fixture
def small():
    """Sizes that keep tests fast."""
    return dict(image_size=56, grounding_size=64, region_grid=8)


@pytest.fixture
def tiny():
    """The picture, its masks and the writers of files, for tests that make their own data."""
    masks = {number: rectangle(box) for number, box in BOXES.items()}
    return SimpleNamespace(picture=picture(), jpeg=jpeg, masks=masks, rle=rle, boxes=BOXES)


@pytest.fixture
def sav_root(tmp_path):
    root = tmp_path / 'sav'
    for number, folder in enumerate(('b', 'a', '')):
        (root / folder).mkdir(parents=True, exist_ok=True)
        frame = np.roll(picture(), number, 1)
        mask1, mask2 = (rectangle(box) * np.uint8(255) for box in BOXES.values())
        np.savez(root / folder / f'masklet_data_{number:05d}.npz', frame1=frame, mask1=mask1,
                 frame2=frame[::-1].copy(), mask2=mask2)
    return root


@pytest.fixture
def write_video():
    """Writes a video whose frames show their number: 16 cells in two rows, one per bit, white for 1."""
    def write(path, count, height=HEIGHT, width=WIDTH, codec='mp4v'):
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 24, (width, height))
        assert writer.isOpened(), f'this OpenCV cannot write {codec}'
        for number in range(count):
            cells = np.uint8([number >> place & 1 for place in range(16)]).reshape(2, 8) * 255
            frame = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
            writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        writer.release()
        return path

    return write


@pytest.fixture
def shown_number():
    """Reads the number off a frame (3, H, W) of such a video, scaled to any size."""
    def number(frame):
        rows, columns = (np.arange(count) * side // count + side // (2 * count)
                         for count, side in zip((2, 8), frame.shape[1:]))
        return sum(int(value > 127) << place for place, value in enumerate(frame[1][rows][:, columns].flatten()))

    return number


@pytest.fixture
def sa1b_root(tmp_path):
    folder = tmp_path / 'sa1b' / 'sa_000000'
    folder.mkdir(parents=True)
    annotations = [dict(id=10 + k, segmentation=rle(rectangle(box)), bbox=list(box), area=box[2] * box[3])
                   for k, box in BOXES.items()]
    for number in (1, 2):
        (folder / f'sa_{number}.jpg').write_bytes(jpeg(picture()))
        content = dict(image=dict(width=WIDTH, height=HEIGHT), annotations=annotations)
        (folder / f'sa_{number}.json').write_text(json.dumps(content))
    return folder.parent


@pytest.fixture
def openimages_root(tmp_path):
    root = tmp_path / 'openimages'
    for folder in ('images', 'masks'):
        (root / folder / 'train').mkdir(parents=True)
    (root / 'images' / 'train' / 'abc.jpg').write_bytes(jpeg(picture()))
    rows = []
    for k, (x, y, width, height) in BOXES.items():
        name = f'abc_m0{k}_box{k}.png'
        mask = Image.fromarray(rectangle(BOXES[k])[::2, ::2])
        mask.save(root / 'masks' / 'train' / name)
        rows.append(dict(MaskPath=name, ImageID='abc', LabelName=f'/m/0{k}', BoxID=f'box{k}', BoxXMin=x / WIDTH,
                         BoxXMax=(x + width) / WIDTH, BoxYMin=y / HEIGHT, BoxYMax=(y + height) / HEIGHT))
    names = [dict(LabelName='/m/01', DisplayName='Cat'), dict(LabelName='/m/02', DisplayName='Box')]
    for file, table in (('train-annotations-object-segmentation.csv', rows), ('oidv7-class-descriptions.csv', names)):
        with open(root / file, 'w', newline='') as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return root


@pytest.fixture
def refcoco_root(tmp_path):
    """Image 7 (train) with three sentences on two objects, image 8 (val) with one."""
    root = tmp_path / 'ref_seg'
    folder = root / 'refcoco' / 'coco2014' / 'train2014'
    folder.mkdir(parents=True)
    images, annotations = [], []
    for image in (7, 8):
        (folder / f'COCO_{image}.jpg').write_bytes(jpeg(picture()))
        images.append(dict(id=image, file_name=f'COCO_{image}.jpg', height=HEIGHT, width=WIDTH))
        for k, (x, y, width, height) in BOXES.items():
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(dict(id=10 * image + k, image_id=image, segmentation=[outline],
                                    bbox=[x, y, width, height], area=width * height))

    def ref(ref_id, image, k, split, *sentences):
        words = [dict(sent=text, raw=text, sent_id=10 * ref_id + n) for n, text in enumerate(sentences)]
        return dict(ref_id=ref_id, ann_id=10 * image + k, image_id=image, split=split, sentences=words,
                    file_name=f'COCO_{image}_{k}.jpg')

    refs = [ref(1, 7, 2, 'train', 'Right Box'), ref(0, 7, 1, 'train', 'left box', 'tall box'),
            ref(2, 8, 1, 'val', 'left one')]
    (root / 'refcoco' / 'instances.json').write_text(json.dumps(dict(images=images, annotations=annotations)))
    (root / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    return root


@pytest.fixture
def write_tar():
    def write(path, members):
        with tarfile.open(path, 'w') as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    return write


@pytest.fixture
def dam_root(tmp_path, write_tar):
    """COCOStuff with two regions of one image and one of another; SAV with one clip of two frames."""
    root = tmp_path / 'dam'
    for split in ('COCOStuff', 'SAV'):
        (root / split / 'images').mkdir(parents=True)

    def region(k, **more):
        return dict(caption=f' Box number {k}.', mask_rle=rle(rectangle(BOXES[k])), **more)

    stuff = dict(c_1=[region(1, img_id=7), region(2, img_id=7)], c_2=dict(regions=region(1, img_id=8)))
    (root / 'COCOStuff' / 'annotations.json').write_text(json.dumps(stuff))
    write_tar(root / 'COCOStuff' / 'images' / '00.tar', {'c_1.jpg': jpeg(picture()), 'c_1.pickle': b'cos\nsystem\n.'})
    write_tar(root / 'COCOStuff' / 'images' / '01.tar', {'./c_2.jpg': jpeg(picture()[::-1].copy())})
    (root / 'SAV' / 'annotations.json').write_text(json.dumps(dict(v_1=region(2))))
    write_tar(root / 'SAV' / 'images' / '00.tar', {'v_1.1.jpg': jpeg(picture() // 2), 'v_1.0.jpg': jpeg(picture())})
    return root


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory):
    """34 sentences of 6 synthetic scenes in the split val."""
    from dual_loop.demo import ensure_demo_data

    root = tmp_path_factory.mktemp('demo') / 'demo'
    ensure_demo_data(root, images=60, seed=3, workers=1, sources=['refcoco'])
    return root / 'ref_seg'
