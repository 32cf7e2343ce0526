"""What ``dual-loop init`` says about the folder; the config is that of tests/test_dual_loop/test_engine."""

import shutil

import pytest

from dual_loop.datasets import FolderDataset
from dual_loop_command import init


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def command(data):
        monkeypatch.chdir(tmp_path)
        status = init.COMMAND.main_of('init', ['run.py', '--data', str(data)])
        assert status == 1 - (tmp_path / 'run.py').exists()
        return capsys.readouterr().err

    return command


def test_the_folder_that_is_not_there_is_called_as_it_was_given(run, own_folder, tmp_path):
    assert run('nowhere') == ('init: --data nowhere does not exist: give a folder with images and masks in it (looked '
                              f'from {tmp_path})\n')
    (tmp_path / 'file').touch()
    assert run('file').startswith('init: --data file is a file: give a folder')
    own_folder.root.mkdir()
    remedy = ('put the pictures into images, and a mask of each object into masks (or a json file of COCO beside)')
    assert run(own_folder.root.name) == f'init: --data my pictures has no folder images and no folder masks: {remedy}\n'
    own_folder.add('a')
    shutil.rmtree(own_folder.root / 'masks')
    assert run(own_folder.root.name) == f'init: --data my pictures has no folder masks: {remedy}\n'
    (own_folder.root / 'masks').mkdir()
    assert run(own_folder.root.name) == ('init: --data my pictures has no objects: put pictures into images and a mask '
                                         'of each object into masks\n')


def test_problems_are_counted_and_not_looked_for_again(run, own_folder, monkeypatch):
    for number in range(20):
        own_folder.add(f'{number}')
    own_folder.save(own_folder.mask(level=0), 'masks/3.png')
    (own_folder.root / 'captions.csv').write_text(
        'name,caption\nnone,A box.\n3,Empty.\n4,\n' + ''.join(f'{number},A box.\n' for number in range(5, 20)))
    made = []
    build = FolderDataset.build_index
    monkeypatch.setattr(FolderDataset, 'build_index', lambda dataset: made.append(dataset.captions) or build(dataset))
    assert run(own_folder.root.name) == ('init: note: 3 problems in my pictures, what has one is not used: run '
                                         'dual-loop check my pictures\n')
    assert sorted(made) == ['any', 'any', 'only', 'only'], 'no more than without the count'


def test_a_bad_mask_where_there_are_no_captions(run, own_folder):
    for number in range(20):
        own_folder.add(f'{number}')
    own_folder.save(own_folder.mask(level=0), 'masks/3.png')
    assert run(own_folder.root.name) == ('init: note: 1 problem in my pictures, what has one is not used: run '
                                         'dual-loop check my pictures\n')


def test_nothing_is_said_about_a_good_folder(run, own_folder):
    for number in range(20):
        own_folder.add(f'{number}')
    assert run(own_folder.root) == ''


def test_too_many_problems(run, own_folder):
    for number in range(20):
        own_folder.add(f'{number}')
        own_folder.save(own_folder.mask(level=0), f'masks/{number}.png')
    assert run(own_folder.root.name) == ('init: --data my pictures has too many masks or captions that cannot be used: '
                                         'run dual-loop check my pictures, which names them\n')
