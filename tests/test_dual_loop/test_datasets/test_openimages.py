import pytest

from dual_loop.datasets import MissingData, OpenImagesDataset


def test_rows_with_labels_and_masks_at_image_size(openimages_root, small, tiny):
    first, second = OpenImagesDataset(openimages_root, **small)
    assert (first['sample_id'], first['label'], first['caption']) == ('abc_m01_box1', 'Cat', None)
    assert second['label'] == '/m/02', 'a label without a display name keeps its code'
    for number, sample in ((1, first), (2, second)):
        assert abs(sample['masks'].float().mean().item() - tiny.masks[number].mean()) < 0.03
    assert OpenImagesDataset(openimages_root, num_objects=2, **small)[0]['label'] == ['Cat', '/m/02']


def test_missing_files_name_the_argument(openimages_root, small):
    with pytest.raises(MissingData, match='validation-annotations.*split'):
        OpenImagesDataset(openimages_root, split='validation', **small)
    (openimages_root / 'masks' / 'train' / 'abc_m01_box1.png').unlink()
    dataset = OpenImagesDataset(openimages_root, **small)
    assert dataset[0]['sample_id'] == 'abc_m02_box2' and dataset.quarantine.count == 1


def test_table_without_a_column(openimages_root, small):
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    table.write_text(table.read_text().replace('ImageID', 'Image'))
    with pytest.raises(ValueError, match='segmentation.csv: a row has no ImageID'):
        OpenImagesDataset(openimages_root, **small)
