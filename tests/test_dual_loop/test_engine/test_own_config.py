"""``dual-loop init``: the config it writes is short, reads the folder, and weights it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dual_loop.config_files import read_config
from dual_loop.datasets.from_config import build_dataset, dataset_settings
from dual_loop.engine.config_check import check_config_keys
from dual_loop.engine.own_config import write_config
from dual_loop.models.dual_loop_model import build_loops
from dual_loop_command import init

CAPTIONS = 'name,caption\n' + ''.join(f'{number},The box {number}.\n' for number in range(0, 20, 2))


@pytest.fixture
def folder(own_folder):
    for number in range(20):
        own_folder.add(f'{number}')
    (own_folder.root / 'captions.csv').write_text(CAPTIONS)
    return own_folder.root


@pytest.fixture
def large(checkout, tmp_path):
    """What can be told of a released model by its config.json."""
    weights = tmp_path / 'Large-4B'
    weights.mkdir()
    content = json.loads((checkout / 'assets/tiny/config.json').read_text())
    content['vision_config']['image_size'] = [448, 448]
    content['grounding_config']['image_size'] = 1024
    (weights / 'config.json').write_text(json.dumps(content))
    return weights


def longest(text: str) -> int:
    """Of the lines without a path."""
    return max(len(line) for line in text.splitlines() if '/pytest-of' not in line)


def built(out: Path):
    cfg = read_config(out)
    check_config_keys(cfg)
    return cfg, {loader: [build_dataset(each) for each in settings] for loader, settings in
                 dataset_settings(cfg).items()}


def test_half_of_each_loop_is_ones_own(folder, checkout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert init.COMMAND.main_of('init', ['run.py', '--data', folder.name, '--steps', '40']) == 0
    said = capsys.readouterr().out
    assert re.search(r'\b\d{4} samples of 4 other data sets', said) and 'dual-loop train run.py' in said
    text = Path('run.py').read_text()
    assert len(text.splitlines()) < 50 and longest(text) <= 120
    cfg, datasets = built(Path('run.py'))
    for loader in ('loop 1', 'loop 2'):
        *others, mine = datasets[loader]
        assert mine.source == 'mine' and mine.split == 'train' and mine.data_root == folder
        assert 0.5 <= len(mine) / sum(map(len, (*others, mine))) < 0.51
    train, held_out = datasets['loop 1'][-1], datasets['held out'][0]
    assert datasets['loop 2'][-1].captioned and held_out.captioned and not train.captioned
    assert len(train.index) + len(build_dataset(cfg.held_out).index) == 20
    paths = [{each.path(row) for row in range(len(each.index))} for each in (train, held_out)]
    assert not paths[0] & paths[1]
    assert cfg.train_cfg.max_steps == 40 == cfg.param_scheduler[1]['end']
    assert list(build_loops(cfg.model)) == ['loop1', 'loop2']
    cycle = next(hook for hook in cfg.custom_hooks if 'datasets' in hook)
    assert len(build_dataset(cycle['datasets'][0]).index) >= 2


def test_without_captions_masks_alone_are_trained_and_measured(folder, checkout, tmp_path):
    (folder / 'captions.csv').unlink()
    write_config(tmp_path / 'run.py', folder, checkout / 'assets/tiny')
    cfg, datasets = built(tmp_path / 'run.py')
    assert 'held out' not in datasets and cfg.val_cfg is None
    assert datasets['loop 1'][-1].source == 'mine' and all(each.source != 'mine' for each in datasets['loop 2'])


@pytest.mark.parametrize('captioned', [True, False])
def test_released_weights_without_other_data(folder, large, tmp_path, captioned):
    if not captioned:
        (folder / 'captions.csv').unlink()
    said = write_config(tmp_path / 'run.py', folder, large)
    assert said.count('0 samples of 0 other data sets') == 2, 'this test needs a checkout without real data'
    text = (tmp_path / 'run.py').read_text()
    assert len(text.splitlines()) < 60 and longest(text) <= 120
    cfg = read_config(tmp_path / 'run.py')
    check_config_keys(cfg)
    assert cfg.model.base.pretrained == str(large) and 'network' not in cfg.model.base
    settings = dataset_settings(cfg)
    [mine] = settings['loop 1']
    assert (mine['image_size'], mine['grounding_size'], mine['num_image_tokens']) == (448, 1024, 784)
    assert mine['repeats'] > 1 and mine['tokenizer']['folder'] == str(large)
    assert list(build_loops(cfg.model)) == (['loop1', 'loop2'] if captioned else ['loop1'])
    assert ('loop 2' in settings) == captioned == ('held out' in settings)


def test_data_that_are_there_stay_beside_ones_own(folder, large, sav_root, tmp_path, monkeypatch):
    from dual_loop.datasets import indexed
    resolve = indexed.resolve
    monkeypatch.setattr(indexed, 'resolve', lambda path: sav_root if str(path) == 'data/sav' else resolve(path))
    write_config(tmp_path / 'run.py', folder, large)
    cfg = read_config(tmp_path / 'run.py')
    sav, mine = (build_dataset(dict(each, tokenizer=None)) for each in dataset_settings(cfg)['loop 1'])
    assert sav.source == 'sav' and mine.source == 'mine' and len(mine) >= len(sav)


def test_the_held_out_part_grows_until_it_says_something(own_folder, checkout, tmp_path):
    # Of these names a hash holds none out with a fifth.
    from dual_loop.datasets import FolderDataset
    names = []
    for number in range(100):
        own_folder.add(f'{number}')
        dataset = FolderDataset(own_folder.root, split='held_out', optional=True, image_size=56, grounding_size=64)
        if len(dataset.index):
            (own_folder.root / f'images/{number}.jpg').unlink()
            (own_folder.root / f'masks/{number}.png').unlink()
        else:
            names.append(number)
        if len(names) == 8:
            break
    write_config(tmp_path / 'run.py', own_folder.root, checkout / 'assets/tiny')
    assert read_config(tmp_path / 'run.py').mine['held_out_share'] > 0.2


@pytest.mark.parametrize('out, error', [
    ('run', 'give a file such as my_run.py'), ('my run.py', 'give a file such as'), ('there.py', 'is there already')])
def test_names_that_cannot_be_written(folder, checkout, tmp_path, out, error):
    (tmp_path / 'there.py').write_text('mine')
    with pytest.raises((ValueError, FileExistsError), match=error):
        write_config(tmp_path / out, folder, checkout / 'assets/tiny')
    assert (tmp_path / 'there.py').read_text() == 'mine'


def test_folders_that_cannot_be_used(own_folder, checkout, tmp_path):
    own_folder.add('a')
    with pytest.raises(ValueError, match='too few objects.*a dozen'):
        write_config(tmp_path / 'run.py', own_folder.root, checkout / 'assets/tiny')
    with pytest.raises(FileNotFoundError, match='images does not exist.*Put the pictures there'):
        write_config(tmp_path / 'run.py', tmp_path / 'none', checkout / 'assets/tiny')
    with pytest.raises(FileNotFoundError, match='config.json'):
        write_config(tmp_path / 'run.py', own_folder.root, tmp_path)
    shutil.rmtree(own_folder.root / 'masks')
    with pytest.raises(FileNotFoundError, match='masks does not exist'):
        write_config(tmp_path / 'run.py', own_folder.root, checkout / 'assets/tiny')
    assert not (tmp_path / 'run.py').exists()
