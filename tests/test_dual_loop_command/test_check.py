"""``dual-loop check`` on a folder of one's own."""

import pytest
from PIL import Image

from dual_loop_command import check


@pytest.fixture
def run(own_folder, tmp_path, monkeypatch, capsys):
    def command(*options):
        monkeypatch.chdir(tmp_path)
        status = check.COMMAND.main_of('check', [str(own_folder.root), *options])
        return status, capsys.readouterr().out

    return command


def test_a_good_folder(own_folder, run, tmp_path):
    for number in range(12):
        own_folder.add(f'Bild {number}')
    own_folder.save(own_folder.mask((slice(0, 9), slice(50, 60))), 'masks/Bild 3_2.png')
    own_folder.add('bare', masked=False)
    (own_folder.root / 'captions.csv').write_text(
        'name,caption\n' + ''.join(f'Bild {number},A box.\nBild {number},Red.\n' for number in (1, 2, 4, 5)))
    status, text = run()
    assert status == 0 and text.splitlines()[-1] == 'all right', text
    assert '  pictures  13\n' in text and 'note      1 pictures have no mask' in text
    counts = {line.split('  ')[1]: [int(word) for word in line.split() if word.isdigit()] for line in text.splitlines()
              if ' objects of ' in line}
    assert [sum(each) for each in zip(*counts.values())] == [13, 12, 4, 8] and counts.keys() == {'training', 'held out'}
    page = tmp_path / 'work_dirs/check/my pictures/index.html'
    assert str(page) in text and 'Objects of my pictures' in page.read_text()
    assert len([file for file in page.parent.glob('mine_*.png') if Image.open(file).width > 500]) == check.DRAWN


def test_everything_that_is_wrong_is_named(own_folder, run):
    for name in ('a', 'b', 'c'):
        own_folder.add(name)
    (own_folder.root / 'images/a.jpg').write_bytes(b'no picture')
    own_folder.save(own_folder.mask(height=60), 'masks/b.png')
    own_folder.save(own_folder.mask(), 'masks/d.png')
    (own_folder.root / 'captions.csv').write_text('name,caption\nc,\n')
    status, text = run()
    faults = [line for line in text.splitlines() if line.startswith('- ')]
    assert status == 1 and text.splitlines()[-1] == '4 problems' and len(faults) == 4, text
    for part in ('masks/d.png: no picture in images has the name',
                 'my pictures/captions.csv: line 2: the caption is empty: ', 'images/a.jpg: cannot be decoded',
                 'masks/b.png: a mask of 64 x 60 pixels does not fit its image of 64 x 48'):
        assert any(part in fault for fault in faults), part


def test_too_much_is_wrong(own_folder, run):
    own_folder.add('a')
    for number in range(15):
        own_folder.save(own_folder.mask(), f'masks/x{number}.png')
    status, text = run()
    assert status == 1 and text.splitlines()[-1] == '15 problems' and text.count('no picture in images') == 15


def test_no_such_folder(own_folder, run, tmp_path):
    own_folder.root.mkdir()
    status, text = run()
    assert status == 1 and 'images does not exist' in text and 'Put the pictures there' in text
    assert 'optional=True' not in text and text.splitlines()[-1] == '1 problem'
    own_folder.add('a', masked=False)
    status, text = run()
    assert status == 1 and 'masks does not exist' in text and 'json file of COCO' in text


def test_neither_a_config_nor_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert check.COMMAND.main_of('check', ['nowhere']) == 1
    assert capsys.readouterr().err == ('check: there is no config file and no folder of pictures nowhere: it does not '
                                       f'exist (looked from {tmp_path})\n')


def test_a_folder_has_no_settings(own_folder, run, capsys):
    own_folder.add('a')
    status, _ = run('--cfg-options', 'model.tau=1')
    assert status == 1
