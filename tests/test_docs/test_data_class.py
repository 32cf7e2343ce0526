"""What docs/data_class.md shows works as it stands there."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from dual_loop.datasets import (
    MissingData,
    TooManyBadSamples,
    collate_samples,
)
from dual_loop.datasets.contract import violations
from dual_loop.datasets.from_config import build_dataset, dataset_settings
from dual_loop.datasets.terms import data_terms

HEIGHT, WIDTH = 64, 256  # so that 128 px are exactly twice the height and half the width
# NAME -> top, left, height, width of a red box; the mask of 'small' is stored at half the size.
BOXES = {'one': (8, 32, 20, 64), 'two': (40, 130, 16, 20), 'small': (16, 64, 32, 128)}
SIZES = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)


@pytest.fixture(scope='module')
def sections(code_blocks):
    return {heading: [text for language, text in blocks if language == 'python']
            for heading, blocks in code_blocks('data_class.md').items()}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'data/mine'
    for kind in ('images', 'masks'):
        (root / kind).mkdir(parents=True)
    for name, (top, left, height, width) in BOXES.items():
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[top:top + height, left:left + width] = 255
        picture = np.where(mask[..., None], np.uint8([250, 0, 0]), np.uint8([0, 40, 90]))
        Image.fromarray(picture).save(root / 'images' / f'{name}.jpg', quality=95, subsampling=0)
        Image.fromarray(mask[::2, ::2] if name == 'small' else mask).save(root / 'masks' / f'{name}.png')
    (root / 'captions.json').write_text(json.dumps({name: f'The box {name}.' for name in BOXES}))
    shutil.copytree(root, tmp_path / 'data/mine_held_out')
    return root


@pytest.fixture
def my_data(sections, tmp_path, monkeypatch):
    """The classes of the page, imported as a user's module."""
    [masks], captions = sections['A data set class of your own'], sections['With captions'][0]
    [pattern] = sections['Arguments of its own']
    (tmp_path / 'my_data.py').write_text(f'{masks}\n\n{captions}\n\n{pattern}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'my_data', raising=False)
    yield importlib.import_module('my_data')
    del sys.modules['my_data']


@pytest.fixture
def configure(checkout, tmp_path, folder, my_data):
    """Write a block of config beside the shipped ones, with its data in a temporary folder."""

    def write(block: str) -> Path:
        shutil.copytree(checkout / 'configs', tmp_path / 'configs')
        config = tmp_path / 'configs/my_run.py'
        config.write_text(block.replace("'data/mine", f"'{folder}"))
        return config

    return write


def test_each_class_takes_less_than_20_lines(sections):
    for block in (sections['A data set class of your own'][0], sections['With captions'][0]):
        [definition] = [node for node in ast.parse(block).body if isinstance(node, ast.ClassDef)]
        lines = block.splitlines()[definition.lineno - 1:definition.end_lineno]
        assert len([line for line in lines if line.strip()]) < 20


@pytest.mark.parametrize('kind', ['MyDataset', 'MyDescribedDataset'])
def test_samples_are_right(my_data, folder, kind):
    dataset = getattr(my_data, kind)(data_root=folder, **SIZES)
    samples = {sample['sample_id']: sample for sample in map(dataset.__getitem__, range(len(dataset)))}
    grid = SIZES['region_grid']
    assert samples.keys() == BOXES.keys() and dataset.quarantine.count == 0
    for name, (top, left, height, width) in BOXES.items():
        sample = samples[name]
        assert not list(violations(sample, dataset))
        mask = torch.zeros(128, 128, dtype=torch.bool)
        mask[2 * top:2 * (top + height), left // 2:(left + width) // 2] = True
        assert torch.equal(sample['masks'], mask)
        red, _, blue = sample['g_pixel_values'].int()
        assert (red[mask] > blue[mask]).float().mean() > 0.95 > 0.05 > (red[~mask] > blue[~mask]).float().mean()
        rows, columns = ([cell for cell in range(grid) if start < side * (cell + 1) and start + size > side * cell]
                         for start, size, side in ((top, height, HEIGHT / grid), (left, width, WIDTH / grid)))
        cells = torch.zeros(grid, grid, dtype=torch.bool)
        cells[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] = True
        assert torch.equal(sample['prompt_masks'], cells)
        assert sample['caption'] == (f'The box {name}.' if dataset.describes else None)
    assert len(collate_samples(list(samples.values()))['captions']) == len(BOXES)


def test_arguments_of_its_own_decide_which_samples_there_are(my_data, folder):
    def ids(**pattern):
        dataset = my_data.MyPatternDataset(folder, **pattern, **SIZES)
        return {dataset[row]['sample_id'] for row in range(len(dataset))}

    for _ in range(2):  # made and stored
        assert ids() == BOXES.keys() and ids(pattern='[ot]*.png') == {'one', 'two'}


def test_new_masks_and_captions_are_found(my_data, folder):
    def ids(kind):
        dataset = kind(data_root=folder, **SIZES)
        return {dataset.sample_id(row) for row in range(len(dataset))}

    both = my_data.MyDataset, my_data.MyDescribedDataset
    assert all(ids(kind) == BOXES.keys() for kind in both)
    for kind, ending in (('images', 'jpg'), ('masks', 'png')):
        shutil.copy(folder / kind / f'one.{ending}', folder / kind / f'new.{ending}')
    assert ids(both[0]) == BOXES.keys() | {'new'} and ids(both[1]) == BOXES.keys()
    (folder / 'captions.json').write_text(json.dumps(dict(new='A box.')))
    assert ids(both[1]) == {'new'}


def test_broken_pictures_and_masks_of_others_are_replaced(my_data, folder):
    (folder / 'images/one.jpg').write_bytes(b'')
    Image.fromarray(np.full((HEIGHT, HEIGHT), 255, np.uint8)).save(folder / 'masks/two.png')
    dataset = my_data.MyDataset(data_root=folder, **SIZES)
    assert {dataset[place]['sample_id'] for place in range(len(dataset))} == {'small'}
    assert {entry['sample_id'] for entry in dataset.quarantine.entries} == {'one', 'two'}


def test_odd_captions_and_names_are_bad_samples(my_data, folder):
    captions = dict(one='The box one.', two=' ', small=7, other=None, another='half \ud800')
    (folder / 'captions.json').write_text(json.dumps(captions))
    dataset = my_data.MyDescribedDataset(data_root=folder, **SIZES)
    assert [sample['sample_id'] for sample in dataset] == ['one']
    assert [entry['reason'] for entry in dataset.quarantine.entries] == 3 * ['it has no valid caption'] + [
        'the caption is empty']
    (folder / 'captions.json').write_text('{"one": "A box.", "two": "A box.", "one": "Another box."}')
    with pytest.raises(ValueError, match=r"captions\.json has the key 'one' twice"):
        my_data.MyDescribedDataset(data_root=folder, **SIZES)
    (folder / 'captions.json').write_text('{"one": ""}')
    with pytest.raises(TooManyBadSamples, match=r'1 of 1 samples .*row 0 \(one.png\).*the caption is empty'):
        my_data.MyDescribedDataset(data_root=folder, optional=True, **SIZES)


def test_hidden_files_are_no_masks_and_odd_names_are_bad_samples(my_data, folder):
    for name in (b'._one.png', b'.DS_Store.png', b'caf\xe9.png', b'__MACOSX/one.png'):
        file = Path(os.fsdecode(os.fsencode(folder / 'masks') + b'/' + name))
        file.parent.mkdir(exist_ok=True)
        file.touch()
    dataset = my_data.MyDataset(data_root=folder, **SIZES)
    assert {dataset.sample_id(row) for row in range(len(dataset))} == BOXES.keys()
    assert [entry['sample_id'] for entry in dataset.quarantine.entries] == ['caf\\udce9.png']
    shutil.rmtree(folder / 'masks')
    with pytest.raises(MissingData, match=r'masks does not exist.*Put the files \*\.png there'):
        my_data.MyDataset(data_root=folder, **SIZES)


def test_a_name_of_two_rows_is_that_of_the_first(my_data, folder):
    class Shortened(my_data.MyDataset):
        def sample_id(self, row):
            return super().sample_id(row)[0]

        def path(self, row):
            return self.data_root / 'images' / 'one.jpg'

    shutil.copy(folder / 'masks/small.png', folder / 'masks/stone.png')
    dataset = Shortened(data_root=folder, **SIZES)
    assert [dataset.sample_id(row) for row in range(len(dataset))] == ['o', 's', 't']
    entry, = dataset.quarantine.entries
    assert entry['sample_id'] == 's again (row 2)' and 'row 1 has that name already' in entry['reason']


def test_config_adds_the_data_to_the_demo(configure, sections, folder, my_data, checkout):
    cfg = Config.fromfile(configure(sections['In a config'][0]))
    usual, ours = (dataset_settings(each) for each in (Config.fromfile(checkout / 'configs/dual_loop_tiny.py'), cfg))
    assert len(ours['loop 1']) == len(usual['loop 1']) + 1 and len(ours['loop 2']) == len(usual['loop 2'])
    dataset = build_dataset(ours['loop 1'][-1])
    assert type(dataset) is my_data.MyDataset and len(dataset) == 3 * len(BOXES)
    assert 'My pictures: mine' in set(data_terms({key: cfg[key] for key in cfg}))


def test_config_adds_described_data_to_the_demo(configure, sections, my_data, tmp_path):
    cfg = Config.fromfile(configure(sections['With captions'][1]))
    cfg.dump(tmp_path / 'dumped.py')
    for each in (cfg, Config.fromfile(tmp_path / 'dumped.py')):  # a run resumes from the copy in its work_dir
        settings = dataset_settings(each)
        datasets = {loader: build_dataset(listed[-1]) for loader, listed in settings.items()}
        assert {loader: type(dataset).__name__ for loader, dataset in datasets.items()} == {
            'loop 1': 'MyDataset', 'loop 2': 'MyDescribedDataset', 'held out': 'MyDescribedDataset'}
        assert datasets['held out'].data_root.name == 'mine_held_out'


ONE_STEP = ['train_cfg.max_steps=1', 'train_cfg.preview_interval=0', 'param_scheduler.0.end=1',
            'param_scheduler.1.begin=1', 'param_scheduler.1.end=2', 'default_hooks.checkpoint.interval=1',
            'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
            'train_cfg.loop2_dataloader.num_workers=0', 'train_cfg.loop2_dataloader.persistent_workers=False']
ALONE = """
for loader in (train_dataloader, train_cfg['loop2_dataloader']):
    loader['dataset'] = loader['dataset']['datasets'][-1]
"""


def test_trains_on_own_data_alone(configure, sections, checkout, tmp_path, folder, monkeypatch):
    config = configure(sections['With captions'][1] + ALONE)
    monkeypatch.setenv('PYTHONPATH', f'{checkout / "projects"}:{tmp_path}')
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', config, '--work-dir', tmp_path / 'work',
         '--cfg-options', *ONE_STEP],
        cwd=tmp_path, capture_output=True, text=True)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert (tmp_path / 'work/iter_1.pth').is_file()
    [mix] = [line.split() for line in log.splitlines() if line.startswith('loop 2  ')]
    assert mix[2:4] == ['mine', str(len(BOXES))]
    assert 'step 1/1 | held_out' in log or 'held-out giou' in log
