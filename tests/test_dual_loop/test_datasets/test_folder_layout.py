"""Which files of a folder are what, by their names."""

import pytest

from dual_loop.datasets.folder_layout import annotation_file, called, list_files, nearest, picture_of


def test_names_lose_their_suffix_and_have_one_form():
    files = list_files(['a.JPG', 'b/c d.v2.jpeg', 'u\u0308.png', 'x.heic', 'y.jpg', 'y.png', 'note'],
                       ('.jpg', '.jpeg', '.png'))
    assert files.paths == {'a': 'a.JPG', 'b/c d.v2': 'b/c d.v2.jpeg', '\u00fc': 'u\u0308.png'}
    assert files.twins == {'y': ['y.jpg', 'y.png']} and files.others == ['x.heic', 'note']


@pytest.mark.parametrize('mask, picture', [
    ('cat', 'cat'), ('cat_1', 'cat_1'), ('cat_2', 'cat'), ('cat_1_left ear', 'cat_1'), ('cat/3', 'cat'),
    ('cat/in/deep_4', 'cat'), ('sub/cat', 'sub/cat'), ('sub/cat_7', 'sub/cat'), ('dog.v2', 'dog.v2'),
    ('dog.v2_1', 'dog.v2'), ('cat.jpg', 'cat'), ('cat.JPEG', 'cat'), ('cat.v2', None), ('cats', None), ('cat-1', None),
    ('other/cat', None), ('_1', None)])
def test_a_mask_belongs_to_the_longest_name_that_it_begins_with(mask, picture):
    assert picture_of(mask, {'cat', 'cat_1', 'sub/cat', 'dog.v2'}) == picture


def test_names_in_files_may_have_the_folder_before_them():
    names = {'a b.jpg': 1, 'sub/c': 2, 'masks/d': 3}
    assert [called(names, each) for each in ('a b.jpg', './images/a b.jpg', 'sub\\c', 'masks/sub/c', 'masks/d', 'c')
            ] == [1, 1, 2, 2, 3, None]


@pytest.mark.parametrize('said, near', [
    ('Katzte', 'Katze'), ('Kaze', 'Katze'), ('Kasze', 'Katze'), ('Kazte', 'Katze'), ('KATZE', 'Katze'),
    ('Katz', 'Katze'), ('aKtze', 'Katze'), ('pic-16_0', 'pic16_0'), ('pic06_0', None), ('pic16_1', None),
    ('Kattzze', None), ('Hunde', None), ('dog', None), ('cats', None)])
def test_the_nearest_name_is_one_slip_away(said, near):
    names = ['Katze', 'Katze', 'pic16_0', 'dig', 'cat1', 'cat2', 'bats', 'rats']
    assert nearest(said, names) == (f' (the nearest is {near})' if near else '')


def test_the_file_of_coco_is_the_only_json(tmp_path):
    assert annotation_file(tmp_path / 'none', None) is None and annotation_file(tmp_path, None) is None
    for name in ('captions.json', '.hidden.json', 'note.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/other.json').touch()
    assert annotation_file(tmp_path, None) is None
    (tmp_path / '_annotations.coco.JSON').touch()
    assert annotation_file(tmp_path, None).name == '_annotations.coco.JSON'
    (tmp_path / 'b.json').touch()
    with pytest.raises(ValueError, match='several json files .*b.json.*annotations='):
        annotation_file(tmp_path, None)
    assert annotation_file(tmp_path, 'b.json') == tmp_path / 'b.json'
