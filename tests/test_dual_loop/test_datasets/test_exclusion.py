"""Pictures that are left out, by any class and under any of their names."""

import numpy as np
import pytest
from PIL import Image

from dual_loop.datasets import GroundedDataset, MissingData, OpenImagesDataset, SA1BDataset, Table, held_out_image_ids
from dual_loop.datasets.exclusion import coco_file_number, excluded_ids, names_of


@pytest.mark.parametrize('name, number', [
    ('COCO_train2014_000000194216.jpg', 194216), ('COCO_val2014_000000000007.JPG', 7), ('000000194216.jpg', 194216),
    ('000000194216.png', 194216), ('7.jpg', None), ('sa_194216.jpg', None), ('0000000000194216.jpg', None),
    ('COCO_7.jpg', None), ('000000194216_mask.jpg', None), ('a000000194216.jpg', None), ('000000194216', None)])
def test_names_that_are_those_of_coco(name, number):
    assert coco_file_number(name) == number


def test_a_picture_is_called_by_number_or_name():
    assert excluded_ids([7, np.int64(8), '9', 'COCO_train2014_000000000010.jpg', 'sa_1', 'my.picture.jpg']) == {
        7, 8, 9, 10, 'sa_1', 'my.picture'}
    assert names_of('folder/COCO_train2014_000000000010.jpg') == {10, 'COCO_train2014_000000000010'}
    assert names_of('sa_1.jpg') == {'sa_1'} and names_of('sav_000001.mp4') == {'sav_000001.mp4'}
    with pytest.raises(ValueError, match="list of ids of pictures, got the text 'sa_1'"):
        excluded_ids('sa_1')


class Pictures(GroundedDataset):
    """A data set of one's own: masks beside their pictures."""

    def build_index(self):
        return dict(samples=Table.of(mask=self.find_files('*.png')))

    def sample_id(self, row):
        return self.index['mask'][row].removesuffix('.png')

    def path(self, row):
        return self.data_root / f'{self.sample_id(row)}.jpg'


class Numbered(Pictures):
    """Without a text that would tell the names of the pictures."""

    def build_index(self):
        return dict(samples=Table.of(number=list(range(4))))

    def sample_id(self, row):
        return f'{self.index["number"][row] + 7:012d}'


@pytest.fixture
def root(tmp_path, tiny):
    for number in (7, 8, 9, 10):
        name = f'COCO_train2014_{number:012d}'
        (tmp_path / 'mine' / 'deep').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'mine' / 'deep' / f'{name}.jpg').write_bytes(tiny.jpeg(tiny.picture))
        Image.fromarray(tiny.masks[1]).save(tmp_path / 'mine' / 'deep' / f'{name}.png')
    return tmp_path / 'mine'


def ids(dataset):
    return [dataset.sample_id(row) for row in range(len(dataset))]


def test_pictures_of_coco_are_refused_until_it_is_said_which_to_leave_out(root, refcoco_root, small):
    for kind in (Pictures, Numbered):
        with pytest.raises(ValueError, match=r'shows pictures of COCO \(.*0007.jpg\).*exclude_image_ids=dict.*or \(\)'):
            kind(root, optional=True, **small)
        assert len(kind(root, exclude_image_ids=(), **small)) == 4
        held_out = dict(type=held_out_image_ids, data_root=refcoco_root)
        assert [name[-1] for name in ids(kind(root, exclude_image_ids=held_out, **small))] == ['7', '9', '0']
        left = ids(kind(root, exclude_image_ids=[7, 'COCO_train2014_000000000009.jpg'], max_samples=2, **small))
        assert [name[-1] for name in left] == ['8', '0']
    with pytest.raises(MissingData, match='no samples.*check data_root and exclude_image_ids'):
        Pictures(root, exclude_image_ids=[7, 8, 9, 10], **small)
    with pytest.raises(FileNotFoundError, match='data_root'):
        Pictures(root, exclude_image_ids=dict(type=held_out_image_ids, data_root=root), optional=True, **small)


def test_another_list_makes_another_index(root, refcoco_root, small):
    held_out = dict(type=held_out_image_ids, data_root=refcoco_root)
    assert len(Pictures(root, exclude_image_ids=held_out, **small)) == 3
    assert len(Pictures(root, exclude_image_ids=[7, 8], **small)) == 2
    file = refcoco_root / 'refcoco' / 'refs(unc).p'
    file.rename(file.with_name('refs(google).p'))
    file.write_bytes(file.with_name('refs(google).p').read_bytes().replace(b'train', b'testA'))
    assert len(Pictures(root, exclude_image_ids=held_out, **small)) == 2, 'image 7 is held out too'


def test_shipped_classes_leave_out_by_name(sa1b_root, openimages_root, small):
    assert ids(SA1BDataset(sa1b_root, exclude_image_ids=['sa_1'], **small)) == ['sa_2_11', 'sa_2_12']
    assert ids(SA1BDataset(sa1b_root, exclude_image_ids=['sa_1.jpg'], max_samples=1, **small)) == ['sa_2_11']
    assert ids(SA1BDataset(sa1b_root, exclude_image_ids=[1], **small))[0] == 'sa_1_11', 'no picture of COCO'
    with pytest.raises(MissingData, match='exclude_image_ids'):
        OpenImagesDataset(openimages_root, exclude_image_ids=['abc'], **small)


def test_sa1b_files_of_coco_pictures_are_refused(sa1b_root, small):
    for file in list((sa1b_root / 'sa_000000').iterdir()):
        file.rename(file.with_name(file.name.replace('sa_', 'COCO_val2014_00000000000')))
    with pytest.raises(ValueError, match='sa1b shows pictures of COCO'):
        SA1BDataset(sa1b_root, **small)
    assert ids(SA1BDataset(sa1b_root, exclude_image_ids=[1], **small)) == [
        'COCO_val2014_000000000002_11', 'COCO_val2014_000000000002_12']
