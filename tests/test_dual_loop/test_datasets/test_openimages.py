import csv

import numpy as np
import pandas
import pytest

from dual_loop.datasets import MissingData, OpenImagesDataset, TooManyBadSamples


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
    with pytest.raises(ValueError, match='segmentation.csv: the table has no column ImageID'):
        OpenImagesDataset(openimages_root, **small)


@pytest.fixture
def long_root(openimages_root):
    """A table that is longer than one of the pieces it is read in, its images in turn."""
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    names = table.read_text().splitlines()[0].split(',')
    with open(table, 'w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, 'Clicks'])
        for row in range(15_000):
            x1, x2, y1, y2 = (round(share, 4) for share in ((row % 7) / 9, 1, 0, (row % 11 + 1) / 11))
            label = ('/m/01', '/m/02', '/m/03')[row % 3 if row < 9000 else 0]
            writer.writerow([f'mask{row}.png', f'{row % 4999 * 7919 % 10007:016x}', label, f'b{row}', x1, x2, y1, y2,
                             '0.5 0.5 1;' * 5])
    assert table.stat().st_size > 1.2 * 2 ** 20
    return openimages_root


def test_long_table_read_in_pieces(long_root, small):
    dataset = OpenImagesDataset(long_root, **small)
    table = pandas.read_csv(long_root / 'train-annotations-object-segmentation.csv')
    index = dataset.index
    assert len(index) == len(table) and index['object'].tolist() == list(range(len(table)))
    assert index['image'].tolist() == pandas.factorize(table['ImageID'])[0].tolist()
    np.testing.assert_array_equal(index['box_width'], (table['BoxXMax'] - table['BoxXMin']).to_numpy(np.float32))
    np.testing.assert_array_equal(index['box_height'], (table['BoxYMax'] - table['BoxYMin']).to_numpy(np.float32))
    for row in (0, 1, 2, 8999, 9001, 14_999):
        assert dataset.path(row).stem == table['ImageID'][row] and dataset.sample_id(row) == f'mask{row}'
        assert dataset.words(row)['label'] == {'/m/01': 'Cat'}.get(table['LabelName'][row], table['LabelName'][row])


def test_first_samples_do_not_need_the_rest_of_the_table(long_root, small):
    table = long_root / 'train-annotations-object-segmentation.csv'
    table.write_text(table.read_text() + ',,,,,,,,\n')
    first = OpenImagesDataset(long_root, max_samples=10, **small)
    assert len(first) == 10 and first.index['image'].tolist() == list(range(10))
    whole = OpenImagesDataset(long_root, **small)
    assert len(whole) == 15_000
    entry, = whole.quarantine.entries
    assert entry['reason'] == 'the row has no valid MaskPath, ImageID, LabelName'


def test_table_without_boxes(openimages_root, small):
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    table.write_text(table.read_text().replace('BoxXMax', 'Right'))
    dataset = OpenImagesDataset(openimages_root, **small)
    assert np.isnan(dataset.index['box_width']).all() and not np.isnan(dataset.index['box_height']).any()


def test_companions_where_images_are_in_turn(openimages_root, small):
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    head, one, two = table.read_text().splitlines()
    table.write_text('\n'.join([head, one, one.replace('abc', 'xyz'), two, two.replace('abc', 'xyz')]))
    dataset = OpenImagesDataset(openimages_root, num_objects=9, **small)
    assert dataset.index['image'].tolist() == [0, 1, 0, 1]
    assert dataset[0]['label'] == ['Cat', '/m/02'] and dataset[2]['label'] == ['/m/02', 'Cat']


HEX = '00000000000000ab', '00000000000000cd'


@pytest.fixture
def named_root(openimages_root):
    """The same with names as those of the release."""
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    table.write_text(table.read_text().replace('abc', HEX[0]))
    for file in [*(openimages_root / 'images' / 'train').iterdir(), *(openimages_root / 'masks' / 'train').iterdir()]:
        file.rename(file.with_name(file.name.replace('abc', HEX[0])))
    return openimages_root


def found(dataset):
    return ([dataset.sample_id(row) for row in range(len(dataset))],
            {entry['sample_id']: entry['reason'] for entry in dataset.quarantine.entries})


@pytest.mark.parametrize('old, new, reason', [
    (f',{HEX[0]},/m/02', f',{HEX[1]},/m/02', 'the mask belongs to another image than ImageID'),
    (',/m/02,', ',/m/03,', 'the mask belongs to another class than LabelName'),
    (f'{HEX[0]}_m02_box2', f'{HEX[0]}_m01_box1', 'the mask belongs to another class than LabelName'),
    (f',{HEX[0]},/m/02', ',,/m/02', 'the row has no valid ImageID'),
    (f',{HEX[0]},/m/02', ',../../secret,/m/02', 'belongs to another image'),
    (f'{HEX[0]}_m02_box2', '../secret', 'leads out of its folder'),
    (f'{HEX[0]}_m02_box2', '/etc/secret', 'leads out of its folder'),
    (f',{HEX[0]},/m/02', ',caf\udce9,/m/02', 'the row has no valid ImageID'),
    ('/m/02,box2,', '/m/02,', 'the row has 7 columns, the table 8')])
def test_an_odd_row_costs_itself(named_root, small, old, new, reason):
    table = named_root / 'train-annotations-object-segmentation.csv'
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new), errors='surrogateescape')
    dataset = OpenImagesDataset(named_root, **small)
    ids, bad = found(dataset)
    assert ids == [f'{HEX[0]}_m01_box1'] and len(bad) == 1 and reason in next(iter(bad.values()))
    assert dataset[0]['label'] == 'Cat'


def test_a_mask_of_two_rows_is_of_the_first(named_root, small):
    table = named_root / 'train-annotations-object-segmentation.csv'
    head, one, two = table.read_text().splitlines()
    table.write_text('\n'.join([head, one, two, one]))
    ids, bad = found(OpenImagesDataset(named_root, **small))
    assert len(ids) == 2 and bad == {f'{HEX[0]}_m01_box1.png again (row 2)': 'row 0 has that mask already'}


def test_a_mask_of_two_images_is_of_none(openimages_root, small):
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    head, one, two = table.read_text().splitlines()
    table.write_text('\n'.join([head, one, two, one.replace(',abc,', ',xyz,')]))
    ids, bad = found(OpenImagesDataset(openimages_root, **small))
    assert ids == ['abc_m02_box2'] and set(bad) == {'abc_m01_box1.png', 'abc_m01_box1.png again (row 2)'}


def test_a_class_with_two_names_goes_by_its_code(named_root, small):
    names = named_root / 'oidv7-class-descriptions.csv'
    names.write_text(names.read_text() + '/m/01,Dog\n/m/02,Box\n/m/02,Box\n')
    dataset = OpenImagesDataset(named_root, **small)
    assert [sample['label'] for sample in dataset] == ['/m/01', 'Box']
    assert found(dataset)[1] == {'/m/01': "the class has two names, 'Cat' and 'Dog'"}


def test_a_folder_that_is_missing_is_left_out_and_a_damaged_table_is_not(named_root, small, tmp_path):
    assert not len(OpenImagesDataset(tmp_path / 'nowhere', optional=True, **small))
    table = named_root / 'train-annotations-object-segmentation.csv'
    table.write_text(table.read_text().replace(HEX[0] + '_', HEX[1] + '_'))
    with pytest.raises(TooManyBadSamples, match='2 of 2 samples of openimages are bad.*another image'):
        OpenImagesDataset(named_root, optional=True, **small)
