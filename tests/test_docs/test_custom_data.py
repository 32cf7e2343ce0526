"""What docs/custom_data.md shows works as it stands there, from twenty pictures to a report."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dual_loop.datasets import FolderDataset, SAVPairDataset, held_out_image_ids
from dual_loop.datasets.contract import violations
from dual_loop.datasets.from_config import build_dataset
from dual_loop.datasets.sentences import read_sentences
from dual_loop_command.command import act
from dual_loop_command.main import parser

SIZES = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
HEIGHT, WIDTH = 64, 256
FEW_STEPS = ['train_cfg.max_steps=2', 'train_cfg.preview_interval=1', 'default_hooks.logger.interval=1',
             'param_scheduler.0.end=1', 'param_scheduler.1.begin=1', 'param_scheduler.1.end=2',
             'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
             'train_cfg.loop2_dataloader.num_workers=0', 'train_cfg.loop2_dataloader.persistent_workers=False']


@pytest.fixture(scope='module')
def sections(code_blocks):
    return code_blocks('custom_data.md')


@pytest.fixture(scope='module')
def steps(sections):
    """The blocks of the first section: layout, table of captions, drawing, check, its output, the run, released."""
    return [text for _, text in sections['From twenty pictures to a report']]


@pytest.fixture(scope='module')
def twenty(steps, tmp_path_factory):
    """A folder with data/my_pictures as the page draws it."""
    folder = tmp_path_factory.mktemp('twenty')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(steps[2], {})
    return folder


def do(line: str) -> int:
    """A line of the page, in this process."""
    _, *words = line.split()
    args = parser().parse_args(words)
    return act('dual-loop', args.__dict__.pop('command'), args)


def test_twenty_pictures_become_a_report(twenty, steps, monkeypatch, capsys, checkout):
    monkeypatch.chdir(twenty)
    assert do(steps[3]) == 0
    said = capsys.readouterr().out
    assert re.sub(r'\S*/(?=data|work_dirs)', '.../', said) == steps[4]
    init, check, train = steps[5].splitlines()
    assert do(init) == 0 and do(check) == 0
    done = subprocess.run([sys.executable, '-m', 'dual_loop_command', *train.split()[1:], '--cfg-options', *FEW_STEPS],
                          capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(checkout / 'projects')))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    page = (twenty / 'work_dirs/my_run/report.html').read_text()
    assert 'held-out ciou' in page and 'IoU found from own descriptions' in page
    lines = (twenty / 'work_dirs/my_run/pictures/index.jsonl').read_text().splitlines()
    shown = [picture for picture in map(json.loads, lines) if picture['source'] == 'mine']
    assert shown and all(picture['sample_id'].startswith('Scene ') for picture in shown)
    assert all(name in page for picture in shown for _, name in picture['pictures'])


def test_the_run_with_released_weights_is_the_same_with_another_option(steps):
    first, second = steps[5].splitlines()[0], steps[6].splitlines()[1]
    assert second.startswith(first.replace('my_run', 'my_4b')) and '--model pretrained/Sa2VA-4B' in second


def test_captions_are_read_as_shown(steps, sections, tmp_path):
    (tmp_path / 'captions.csv').write_text(steps[1])
    (tmp_path / 'captions.json').write_text(sections['Captions'][0][1])
    for name in ('captions.csv', 'captions.json'):
        read = read_sentences(tmp_path / name)
        assert read and not any(each.problem for each in read)
        assert (read[0].name, read[0].text) == ('dog', 'A brown dog with a red collar, asleep.')


def dataset_of(line):
    """The data set of a line of config, in the current folder."""
    settings = eval(line, dict(SAVPairDataset=SAVPairDataset, FolderDataset=FolderDataset,
                               held_out_image_ids=held_out_image_ids, sizes=SIZES))
    dataset = build_dataset(settings | dict(data_root=str(Path(settings['data_root']).absolute())))
    assert dataset.source == settings['name']
    return dataset


def test_the_line_of_a_config_reads_the_folder(sections, twenty, monkeypatch):
    monkeypatch.chdir(twenty)
    dataset = dataset_of(sections['In a config'][0][1])
    assert len(dataset) > 20 and dataset.split == 'train'


def test_all_arguments_are_in_the_table(checkout):
    text = (checkout / 'docs/custom_data.md').read_text()
    arguments = set(inspect.signature(FolderDataset.__init__).parameters) - {'self', 'data_root', 'common'}
    assert arguments == set(re.findall(r'^\| `(\w+)` \|', text, re.M))


def test_pairs_are_read_as_they_are_written(sections, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('data/my_pairs').mkdir(parents=True)
    write, line = (text for _, text in sections['Pairs of frames'])
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    masks = np.zeros((2, 2, HEIGHT, WIDTH), bool)
    masks[:, 0, 8:28, 32:96] = masks[:, 1, 40:56, 130:150] = True
    exec(write, dict(np=np, pairs=[(f[0], m[0], f[1], m[1]) for f, m in zip(frames, masks)]))
    dataset = dataset_of(line)
    assert len(dataset) == 2
    for row in range(2):
        sample = dataset[row]
        assert not list(violations(sample, dataset))
        for suffix, (top, bottom, left, right) in (('1', (16, 56, 16, 48)), ('2', (80, 112, 65, 75))):
            inside = sample[f'masks{suffix}'].nonzero()
            assert inside.amin(0).tolist() == [top, left] and inside.amax(0).tolist() == [bottom - 1, right - 1]


@pytest.mark.parametrize('coco', [True, False])
def test_held_out_pictures_of_coco_cannot_come_in(sections, refcoco_root, tmp_path, monkeypatch, coco):
    """Three pictures of COCO, one of them held out, with masks or with COCO's own file."""
    monkeypatch.chdir(tmp_path)
    root = Path('data/my_coco')
    (root / 'images').mkdir(parents=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 20:90] = 255
    content = dict(images=[], annotations=[])
    for number in (6, 7, 8):
        name = f'COCO_train2014_{number:012d}'
        Image.fromarray(mask).save(root / f'images/{name}.jpg')
        content['images'].append(dict(id=number, file_name=f'{name}.jpg', height=HEIGHT, width=WIDTH))
        content['annotations'].append(dict(id=number, image_id=number, segmentation=[[20, 10, 90, 10, 90, 30, 20, 30]]))
        if not coco:
            (root / 'masks').mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / f'masks/{name}.png')
    if coco:
        (root / 'instances.json').write_text(json.dumps(content))
    [(_, line)] = sections['Pictures of COCO']
    excluding = line.replace('data/ref_seg', str(refcoco_root)).replace("name='my_coco'", "name='my_coco', split='all'")
    without = re.sub(r",\s*exclude_image_ids=dict\(.*?\)", '', excluding)
    with pytest.raises(ValueError, match=r'pictures of COCO.*exclude_image_ids=dict\(type=held_out_image_ids'):
        dataset_of(without)
    dataset = dataset_of(excluding)
    assert sorted(dataset.path(row).stem[-1] for row in range(len(dataset))) == ['6', '7'], '8 is held out'
