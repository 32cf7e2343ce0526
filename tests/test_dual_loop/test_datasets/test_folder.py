"""``FolderDataset`` on folders as people have them."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dual_loop.datasets import FolderDataset, MissingData, TooManyBadSamples, collate_samples
from dual_loop.datasets.contract import violations

LEFT, RIGHT = (slice(10, 30), slice(4, 24)), (slice(12, 40), slice(36, 60))


@pytest.fixture
def opened(own_folder, small):
    def build(split='all', **more):
        return FolderDataset(own_folder.root, split=split, **small, **more)

    return build


def captions_of(dataset):
    return {dataset.sample_id(row): dataset.words(row)['caption'] for row in range(len(dataset.index))}


def bad(dataset):
    return {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries}


def box_of(mask):
    """Of a target of 64 x 64, in pixels of the 48 x 64 picture."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (slice(round(rows[0] * .75), round((rows[-1] + 1) * .75)), slice(int(columns[0]), int(columns[-1]) + 1))


def test_samples_keep_the_promise_and_lie_on_the_object(own_folder, opened):
    own_folder.add('Größe 1/straße')
    own_folder.add('b', image='.PNG')
    for dataset in (opened(), opened(), pickle.loads(pickle.dumps(opened()))):  # made, stored, in a worker
        assert captions_of(dataset) == {'Größe 1/straße': None, 'b': None} and not dataset.captioned
        for row in range(2):
            sample = dataset[row]
            assert not list(violations(sample, dataset))
            assert box_of(sample['masks'].numpy()) == own_folder.box
            red, _, blue = sample['g_pixel_values'].int()
            inside, outside = ((red > blue)[part].float().mean() for part in (sample['masks'], ~sample['masks']))
            assert inside > .95 > .1 > outside
        assert not dataset.quarantine.count and not dataset.remarks()


def test_several_masks_and_objects_of_one_picture(own_folder, opened):
    own_folder.add('a', masked=False)
    own_folder.save(own_folder.mask(LEFT), 'masks/a_left.png')
    own_folder.save(own_folder.mask(RIGHT), 'masks/a/right.TIF')
    indexed = own_folder.mask(LEFT, 3)
    indexed[RIGHT] = 8
    own_folder.add('b', masked=False)
    own_folder.save(indexed, 'masks/b.png')
    dataset = opened(num_objects=4)
    rows = {dataset.sample_id(row): row for row in range(4)}
    assert rows.keys() == {'a/right', 'a_left', 'b:3', 'b:8'}
    for name, box in {'a/right': RIGHT, 'a_left': LEFT, 'b:3': LEFT, 'b:8': RIGHT}.items():
        assert box_of(dataset[rows[name]]['masks'][0].numpy()) == box, name
        assert dataset.path(rows[name]).name == f'{name[0]}.jpg'
        assert len(dataset[rows[name]]['masks']) == 2, 'the other object of the picture is its companion'
    assert collate_samples([dataset[0]])['masks1'].shape == (2, 64, 64)
    assert captions_of(opened(objects='one')).keys() == {'a/right', 'a_left', 'b'}


def test_captions_go_to_both_loops(own_folder, opened):
    for name in ('a', 'ü b', 'c', 'd'):
        own_folder.add(name)
    own_folder.add('d')
    own_folder.save(own_folder.mask(RIGHT), 'masks/d_2.png')
    (own_folder.root / 'captions.json').write_text(json.dumps({
        'a.jpg': ['The red box.', 'A box.'], 'u\u0308 b': 'Über allem.', 'masks/d_2.png': 'The right one.'}))
    dataset = opened()
    assert captions_of(dataset) == {'a': 'The red box.', 'a~2': 'A box.', 'ü b': 'Über allem.', 'c': None, 'd': None,
                                    'd_2': 'The right one.'}
    assert not dataset.captioned and not dataset.describes
    assert dataset.modality_length.tolist()[2] < dataset.modality_length.tolist()[0], 'without words it is shorter'
    only, none = opened(captions='only'), opened(captions='none')
    assert captions_of(only).keys() == {'a', 'a~2', 'ü b', 'd_2'} and only.captioned and only.describes
    assert captions_of(none) == {'c': None, 'd': None} and 'caption' not in none.index
    assert not any(list(violations(each[row], each)) for each in (dataset, only, none) for row in range(len(each)))
    # A file that is written anew is read anew.
    (own_folder.root / 'captions.json').unlink()
    (own_folder.root / 'captions.csv').write_text('name;caption\nc;Last.\nc;Also.\n')
    assert captions_of(opened(captions='only')) == {'c': 'Last.', 'c~2': 'Also.'}


def test_captions_that_name_nothing_are_told_by_file_and_line(own_folder, opened):
    for name in ('Katze', 'b', 'c'):
        own_folder.add(name)
    own_folder.add('bare', masked=False)
    own_folder.save(own_folder.mask(RIGHT), 'masks/b_2.png')
    (own_folder.root / 'captions.csv').write_text(
        'name,caption\nKatzte,A cat.\nb.jpg,Two?\nbare,No mask.\nc,\nb,The left.\n')
    dataset = opened()
    assert captions_of(dataset) == {'Katze': None, 'b': 'The left.', 'b_2': None, 'c': None}
    said = list(bad(dataset).values())
    assert [each.partition(':')[0] for each in said] == [f'line {line}' for line in (2, 3, 4, 5)]
    assert 'neither a mask nor a picture here (the nearest is Katze)' in said[0]
    assert "'b.jpg' has 2 objects: name one of b, b_2" in said[1]
    assert "'bare' has no mask" in said[2] and 'the caption is empty' in said[3]
    assert dataset.remarks() == ['1 pictures have no mask that can be used and are not trained on: bare']


def test_captions_of_masks_that_cannot_be_used_are_no_faults_of_their_own(own_folder, opened):
    root = own_folder.root
    for name in ('empty', 'damaged', 'twin', 'two', 'good', 'other', 'jpeg'):
        own_folder.add(name, masked=name not in ('two', 'jpeg'))
    own_folder.save(own_folder.mask(level=0), 'masks/empty.png')
    own_folder.save(own_folder.mask(RIGHT), 'masks/empty_2.png')  # the caption of the empty one is not given to it
    (root / 'masks/damaged.png').write_bytes(b'no picture')
    own_folder.add('twin', image='.png')
    own_folder.save(own_folder.mask(), 'masks/jpeg.jpg')
    edge = own_folder.mask(LEFT, 3)
    edge[RIGHT] = 8
    edge[45, 5:9] = 5
    own_folder.save(edge, 'masks/two_x.png')
    refused = ('empty', 'damaged.png', 'masks/twin.png', 'jpeg', 'damaged:3')
    wrong = {'two_x': "'two_x' has 2 objects: name one of two_x:3, two_x:8",
             'two_x:5': "'two_x:5' is no object that can be used: name one of two_x:3, two_x:8",
             'twin.jpg': "the picture 'twin.jpg' has no mask that can be used",
             'goood': "'goood' is neither a mask nor a picture here",  # good has a caption
             'othr': "'othr' is neither a mask nor a picture here (the nearest is other)"}
    (root / 'captions.json').write_text(json.dumps(dict.fromkeys((*refused, *wrong, 'good'), 'A box.')))
    dataset = opened()
    faults = {key: reason for key, reason in bad(dataset).items() if key.startswith('captions.json')}
    assert list(faults.values()) == list(wrong.values()) and len(bad(dataset)) == len(faults) + 5
    assert {name for name, caption in captions_of(dataset).items() if caption} == {'good'}


def test_the_held_out_part_stays_when_files_are_added(own_folder, opened):
    names = [f'picture {number:02d}' for number in range(40)]
    for name in names[::2]:
        own_folder.add(name)
    first = {split: captions_of(opened(split)).keys() for split in ('train', 'held_out', 'all')}
    assert first['train'] | first['held_out'] == first['all'] == set(names[::2])
    assert not first['train'] & first['held_out'] and 1 <= len(first['held_out']) <= 9
    for name in names[1::2]:
        own_folder.add(name)
    for split in ('train', 'held_out'):
        assert first[split] < captions_of(opened(split)).keys()
    assert len(opened('held_out', held_out_share=0.9)) > 30
    with pytest.raises(MissingData, match="no picture for split='held_out': of 40 pictures.*held_out_share=0"):
        opened('held_out', held_out_share=0)
    assert len(opened('held_out', held_out_share=0, optional=True)) == 0


def test_faults_count_once_in_the_part_they_belong_to(own_folder, opened):
    for number in range(20):
        own_folder.add(f'{number}', masked=number % 3 > 0)
        if number % 3 == 0:
            own_folder.save(own_folder.mask(level=0), f'masks/{number}.png')
    parts = [bad(opened(split)) for split in ('train', 'held_out')]
    assert all(parts) and not parts[0].keys() & parts[1].keys() and parts[0] | parts[1] == bad(opened())
    assert list(bad(opened()).values()) == 7 * ['the mask is empty: draw the object in it, or remove the file']


def test_what_does_not_fit_is_named_and_the_rest_is_used(own_folder, opened):
    root = own_folder.root
    for name in ('good', 'twin', 'jpeg', 'broken', 'photo'):
        own_folder.add(name, masked=name != 'jpeg')
    own_folder.add('twin', image='.png')
    own_folder.add('alone', masked=False)
    own_folder.save(own_folder.mask(), 'masks/jpeg.jpg')
    own_folder.save(own_folder.mask(), 'masks/goood.png')
    own_folder.save(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), 'masks/photo.png')
    (root / 'masks/broken.png').write_bytes((root / 'masks/good.png').read_bytes()[:-30])
    (root / 'images/IMG.HEIC').write_bytes(b'no picture')
    for each in ('images/.DS_Store', 'images/Thumbs.db', 'masks/._good.png'):
        (root / each).touch()
    dataset = opened()
    assert captions_of(dataset).keys() == {'good'}
    faults = bad(dataset)
    wrong = ('jpeg.jpg', 'goood.png', 'photo.png', 'broken.png', 'twin.png')
    assert faults.keys() == {f'masks/{name}' for name in wrong}
    assert 'save it as one of .png' in faults['masks/jpeg.jpg'] and 'nearest is good' in faults['masks/goood.png']
    assert 'twin.jpg, twin.png: rename' in faults['masks/twin.png'] and 'picture rather' in faults['masks/photo.png']
    text = '\n'.join(dataset.remarks())
    assert 'alone' in text and 'IMG.HEIC' in text and 'save them as JPEG or PNG' in text and 'twin.png' in text
    own_folder.save(own_folder.mask(), 'masks/broken.png')  # mended in its place: noticed
    assert captions_of(opened()).keys() == {'good', 'broken'}
    for number in range(9):
        (root / f'masks/x{number}.png').touch()
    with pytest.raises(TooManyBadSamples, match=r'13 of 15 samples .* are bad'):
        opened()


def test_other_sizes_orientations_and_colours_of_pictures(own_folder, opened):
    values = own_folder.mask()
    for name, picture in {'half': Image.fromarray(values[::2, ::2]), 'square': Image.fromarray(values[:, :48])}.items():
        own_folder.save(own_folder.draw(values), f'images/{name}.jpg')
        own_folder.save(picture, f'masks/{name}.png')
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by a quarter to the right: the file lies on its left side
    own_folder.save(own_folder.draw(np.rot90(values)), 'images/turned.jpg', exif=turned)
    own_folder.save(values, 'masks/turned.png')
    own_folder.save(own_folder.draw(values).convert('CMYK'), 'images/cmyk.jpg')
    own_folder.save(own_folder.draw(values).convert('L'), 'images/grey.jpg')
    for name in ('cmyk', 'grey'):
        own_folder.save(values, f'masks/{name}.png')
    dataset = opened()
    assert len(dataset.index) == 5
    seen = {}
    for row in range(5):
        sample = dataset[row]
        assert not list(violations(sample, dataset))
        seen[sample['sample_id']] = box_of(sample['masks'].numpy())
    assert seen == dict.fromkeys(('half', 'turned', 'cmyk', 'grey'), own_folder.box)
    assert 'does not fit its image' in bad(dataset)['square']


@pytest.fixture
def coco(own_folder):
    """The file of COCO; gives its content and writes it."""
    images, annotations = [], []
    for number, name in enumerate(('one', 'sub/two ü'), 5):
        own_folder.add(name, masked=False)
        images.append(dict(id=number, file_name=f'{name}.jpg', height=48, width=64))
        for place, box in enumerate((LEFT, RIGHT)):
            y, x = box
            outline = [x.start, y.start, x.stop, y.start, x.stop, y.stop, x.start, y.stop]
            rectangle = [x.start, y.start, x.stop - x.start, y.stop - y.start]
            annotations.append(dict(id=10 * number + place, image_id=number, category_id=3, iscrowd=0, area=1,
                                    segmentation=[outline], bbox=rectangle))
    content = dict(images=images, annotations=annotations, categories=[dict(id=3, name='box')])

    def write():
        (own_folder.root / 'instances.json').write_text(json.dumps(content))

    return content, write


def test_coco(own_folder, opened, coco):
    content, write = coco
    content['annotations'][1]['caption'] = ['The right one.', 'Right.']
    content['annotations'].append(dict(content['annotations'][0], id=99, iscrowd=1))
    content['images'][0]['file_name'] = 'images\\one.jpg'
    write()
    table = own_folder.root / 'captions.csv'
    table.write_text('name,caption\none:7,No such one.\n')
    assert list(bad(opened()).values()) == [
        "line 2: 'one:7' is no object that can be used: name one of one:50, one:51"]
    table.write_text('name,caption\nsub/two ü:60,The left one.\n')
    dataset = opened()
    assert captions_of(dataset) == {'one:50': None, 'one:51': 'The right one.', 'one:51~2': 'Right.',
                                    'sub/two ü:60': 'The left one.', 'sub/two ü:61': None}
    for row in range(len(dataset)):
        sample = dataset[row]
        assert box_of(sample['masks'].numpy()) == (LEFT if sample['sample_id'].endswith('0') else RIGHT)
        assert sample['label'] == 'box' and not list(violations(sample, dataset))
    assert not bad(dataset) and dataset.remarks() == ['1 annotations with iscrowd outline a group and are no objects']
    (own_folder.root / 'masks').mkdir()
    with pytest.raises(ValueError, match='both masks and instances.json: remove one'):
        opened()


def test_what_contradicts_itself_in_coco_is_named(own_folder, opened, coco):
    content, write = coco
    first, second, third, fourth = content['annotations']
    second['segmentation'] = []
    third['image_id'] = 7
    fourth['caption'] = ' '
    content['annotations'] += [dict(first), dict(segmentation=[[0, 0, 1, 1, 2, 2]]), dict(first, id=70, image_id=8)]
    content['images'].append(dict(id=8, file_name='gone.jpg'))
    write()
    dataset = opened()
    assert captions_of(dataset).keys() == {'one:50', 'sub/two ü:61'}
    said = '\n'.join(bad(dataset).values())
    for part in ('annotation 51 has no outline', 'image 7 is not listed', 'annotation 61 has an empty caption',
                 'annotations[5] has no id', "image 8 has file_name 'gone.jpg', which is not in images"):
        assert part in said
    assert len(bad(dataset)) == 5
    (own_folder.root / 'instances.json').write_text('{"images": [')
    with pytest.raises(ValueError, match=r'instances\.json is not a JSON file.*Export it as COCO'):
        opened()


def test_what_is_missing_is_named(own_folder, small, tmp_path):
    with pytest.raises(MissingData, match='images does not exist.*Put the pictures there'):
        FolderDataset(tmp_path / 'nothing', **small)
    own_folder.add('a', masked=False)
    with pytest.raises(MissingData, match='masks does not exist.*Put the masks there'):
        FolderDataset(own_folder.root, **small)
    (own_folder.root / 'masks').mkdir()
    with pytest.raises(MissingData, match='no samples in'):
        FolderDataset(own_folder.root, **small)
    with pytest.raises(MissingData, match='from data_root and annotations'):
        FolderDataset(own_folder.root, annotations='a.json', **small)


@pytest.mark.parametrize('more, error', [
    (dict(split='val'), "split must be one of train, held_out, all, got 'val'"),
    (dict(captions=True), 'captions must be'),
    (dict(objects='two'), 'objects must be one of auto, one, indexed'), (dict(held_out_share=1), 'below 1, got 1')])
def test_arguments_are_checked(tmp_path, more, error):
    with pytest.raises(ValueError, match=error):
        FolderDataset(tmp_path, **more)


def test_pictures_can_be_left_out_and_repeated(own_folder, opened):
    for name in ('a', 'sub/b', 'c'):
        own_folder.add(name)
    assert captions_of(opened(exclude_image_ids=['b.jpg'])).keys() == {'a', 'c'}
    assert len(opened(repeats=2.5)) == 8 and len(opened(max_samples=2)) == 2
    shutil.copy(own_folder.root / 'images/a.jpg', own_folder.root / 'images/COCO_train2014_000000000042.jpg')
    shutil.copy(own_folder.root / 'masks/a.png', own_folder.root / 'masks/COCO_train2014_000000000042.png')
    with pytest.raises(ValueError, match='shows pictures of COCO'):
        opened()
    assert len(opened(exclude_image_ids=[42])) == 3 and len(opened(exclude_image_ids=())) == 4


def test_the_same_pictures_for_the_same_seed(own_folder, opened):
    for name in 'abc':
        own_folder.add(name)
    one, other = opened(repeats=1.5, seed=3), opened(repeats=1.5, seed=3)
    assert [sample['sample_id'] for sample in one] == [sample['sample_id'] for sample in other]
    assert torch.equal(one[0]['pixel_values'], other[0]['pixel_values'])
