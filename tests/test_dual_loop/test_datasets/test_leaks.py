"""Which held-out pictures a source of training can show."""

import pickle
import shutil

import pytest

from dual_loop.datasets import (
    DescribeAnythingDataset,
    OpenImagesDataset,
    RefCOCODataset,
    SA1BDataset,
    held_out_image_ids,
)
from dual_loop.datasets.leaks import HeldOut, may_show_held_out


@pytest.fixture
def held_out(refcoco_root):
    """Image 8 is held out."""
    found = HeldOut()
    found.add_lists([None, (), dict(type=held_out_image_ids, data_root=str(refcoco_root)),
                     dict(type='dual_loop.datasets.held_out_image_ids', data_root='no such folder')], [])
    assert found.numbers == {8: str(refcoco_root)}
    return found


def test_references_and_descriptions(held_out, refcoco_root, dam_root, small):
    assert not held_out.shown_by(RefCOCODataset(refcoco_root, **small))
    assert not held_out.shown_by(RefCOCODataset(refcoco_root, exclude_image_ids=[8], **small))
    text, = held_out.shown_by(RefCOCODataset(refcoco_root, split='val', **small))
    assert text.startswith('1 of its pictures are held out, such as 8 in') and 'set exclude_image_ids=dict(' in text
    for split, excluded, count in (('COCOStuff', (), 1), ('COCOStuff', [8], 0), ('COCOStuff', [7], 1), ('SAV', (), 0)):
        dataset = DescribeAnythingDataset(dam_root, split, exclude_image_ids=excluded, **small)
        assert len(held_out.shown_by(dataset)) == count


def test_masks_of_pictures_that_are_named_as_those_of_coco(held_out, sa1b_root, small):
    assert not held_out.shown_by(SA1BDataset(sa1b_root, **small))
    for file in list((sa1b_root / 'sa_000000').iterdir()):
        file.rename(file.with_name(f'{int(file.stem[3:]) + 6:012d}{file.suffix}'))
    text, = held_out.shown_by(SA1BDataset(sa1b_root, exclude_image_ids=(), **small))
    assert '1 of its pictures are held out, such as 8' in text
    assert not held_out.shown_by(SA1BDataset(sa1b_root, exclude_image_ids=[8], **small))


def test_pictures_of_validation(sa1b_root, openimages_root, small, tmp_path):
    found = HeldOut()
    found.add_dataset(SA1BDataset(sa1b_root, exclude_image_ids=['sa_1'], **small))
    (tmp_path / 'link').symlink_to(sa1b_root)
    for root in (sa1b_root, tmp_path / 'link'):
        text, = found.shown_by(SA1BDataset(root, **small))
        assert text.startswith('1 of its 2 pictures are those of validation, such as') and 'sa_2.jpg' in text
    shutil.copytree(sa1b_root, tmp_path / 'copy')
    assert not found.shown_by(SA1BDataset(tmp_path / 'copy', **small))
    assert not found.shown_by(OpenImagesDataset(openimages_root, **small))


def test_what_leaves_out_nothing(refcoco_root, dam_root, sa1b_root, small):
    assert may_show_held_out(RefCOCODataset(refcoco_root, exclude_image_ids=(), **small))
    assert not may_show_held_out(RefCOCODataset(refcoco_root, **small))
    assert may_show_held_out(DescribeAnythingDataset(dam_root, 'COCOStuff', exclude_image_ids=(), **small))
    assert not may_show_held_out(DescribeAnythingDataset(dam_root, 'SAV', **small))
    assert not may_show_held_out(SA1BDataset(sa1b_root, exclude_image_ids=(), **small))
    for file in list((sa1b_root / 'sa_000000').iterdir()):
        file.rename(file.with_name(f'00000000000{file.stem[3:]}{file.suffix}'))
    assert may_show_held_out(SA1BDataset(sa1b_root, exclude_image_ids=(), **small))


def test_a_damaged_list_is_an_error(refcoco_root):
    (refcoco_root / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps('x'))
    with pytest.raises(ValueError, match=r'refs\(unc\)\.p'):
        HeldOut().add_lists([], [refcoco_root])
