"""The shipped configurations through the real command lines, cut to a few steps."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import dual_loop  # noqa: F401  (makes checkpoints readable with weights_only=True)
from dual_loop.visualization.quantities import explain

FEW_STEPS = ['train_cfg.max_steps=4', 'param_scheduler.1.end=4', 'param_scheduler.0.end=2',
             'param_scheduler.1.begin=2', 'train_cfg.preview_interval=2', 'default_hooks.logger.interval=2',
             'default_hooks.checkpoint.interval=4', 'train_dataloader.num_workers=0',
             'train_dataloader.persistent_workers=False', 'train_cfg.loop2_dataloader.num_workers=0',
             'train_cfg.loop2_dataloader.persistent_workers=False']


@pytest.fixture(scope='module')
def main_job(checkout, tmp_path_factory):
    """``xtuner train`` from another folder, as a user calls it."""
    if shutil.which('xtuner') is None:
        pytest.skip('the command xtuner is not on PATH; activate the environment')
    work_dir = tmp_path_factory.mktemp('main_job')
    done = subprocess.run(
        ['xtuner', 'train', str(checkout / 'configs/dual_loop_tiny.py'), '--work-dir', str(work_dir),
         '--cfg-options', *FEW_STEPS],
        cwd=work_dir, capture_output=True, text=True,
    )
    return work_dir, done.stdout + done.stderr


def test_writes_what_it_promises(main_job):
    work_dir, log = main_job
    assert (work_dir / 'iter_4.pth').is_file(), log[-3000:]
    assert 'step 4/4 | loop 1: mask' in log and 'loop 2: caption' in log and '| cos ' in log and 'eta' in log
    assert 'held-out ciou' in log and str(work_dir / 'report.html') in log
    pictures = [json.loads(line) for line in (work_dir / 'pictures/index.jsonl').read_text().splitlines()]
    assert {picture['step'] for picture in pictures} == {1, 2, 4}
    page = (work_dir / 'report.html').read_text()
    assert all(name in page for picture in pictures for _, name in picture['pictures'])
    described = [picture for picture in pictures if len(picture['texts']) == 3]
    assert described and all(any(changed for _, changed in picture['texts'][1][1]) for picture in described)
    assert 'xtuner train' in page and str(work_dir) in page
    assert list(work_dir.glob('*/vis_data/events.out.tfevents.*'))


def test_the_first_step_comes_after_few_lines(main_job):
    work_dir, log = main_job
    before = log[:log.index('mmengine - INFO - step 2/4 | loop 1')].splitlines()
    assert len(before) <= 25, log[:6000]
    [log_file] = (path for path in work_dir.glob('*/*.log') if not path.name.startswith('rank'))
    kept, [config] = log_file.read_text(), list(work_dir.glob('*/vis_data/config.py'))
    assert 'System environment' in kept and 'Hooks will be executed' in kept and 'param_scheduler = [' not in kept
    assert 'param_scheduler = [' in config.read_text() and config.parts[-3] in log


def test_every_figure_of_the_log_is_explained(main_job):
    work_dir, _ = main_job
    [log] = work_dir.glob('*/vis_data/scalars.json')
    names = {name for line in log.read_text().splitlines() for name in json.loads(line)} - {'step', 'iter'}
    assert len(names) > 60
    assert [name for name in names if not explain(name).meaning or 'figure of its own' in explain(name).meaning] == []


def test_checkpoint_holds_trainables_and_their_average(main_job):
    work_dir, log = main_job
    checkpoint = torch.load(work_dir / 'iter_4.pth', weights_only=True)
    names = set(checkpoint['state_dict'])
    assert all('lora_' in name or '.mlp1.' in name or '.text_hidden_fcs.' in name or '.mask_decoder.' in name
               for name in names)
    assert set(checkpoint['ema']['values']) == names
    assert checkpoint['ema']['num_updates'] == 4
    moved = [name for name, value in checkpoint['state_dict'].items() if 'lora_B' in name and value.any()]
    assert moved, 'LoRA has not been trained'
    # The first update has decay 0.1, so the average follows closely but is not the student.
    averages = checkpoint['ema']['values']
    assert any(not torch.equal(averages[name], checkpoint['state_dict'][name]) for name in moved)


def test_the_report_and_the_page_of_an_evaluation_link_each_other(main_job, checkout, tmp_path):
    work_dir = shutil.copytree(main_job[0], tmp_path / 'work')
    done = subprocess.run(
        [sys.executable, checkout / 'tools/eval_refcoco.py', 'refcoco', checkout / 'configs/dual_loop_tiny.py',
         work_dir / 'iter_4.pth', '--data-root', checkout / 'data/demo_held_out/ref_seg', '--max_samples', '2',
         '--examples', '1', '--num-workers', '0', '--out', tmp_path / 'eval' / 'mine.json'],
        capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'href="../work/report.html"' in (tmp_path / 'eval/mine.html').read_text()
    assert 'href="../eval/mine.html"' in (work_dir / 'report.html').read_text()


def test_export_loads_again(main_job, checkout, tmp_path):
    work_dir, _ = main_job
    out = tmp_path / 'exported'
    command = [sys.executable, checkout / 'tools/convert_ckpt_to_hf.py', checkout / 'configs/dual_loop_tiny.py',
               work_dir / 'iter_4.pth', out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    from llava_sam2.model import VideoLLaVASAMModel

    VideoLLaVASAMModel(str(out), pretrained=str(out))
    average = tmp_path / 'average'
    done = subprocess.run([*command[:-1], average, '--ema'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    trained, averaged = (load_file(folder / 'model.safetensors') for folder in (out, average))
    differ = {name for name in trained if not torch.equal(trained[name], averaged[name])}
    # What is not trained is the same; the average follows the rest closely.
    assert differ and all(name.startswith(('mlp1.', 'text_hidden_fcs.', 'language_model.model.layers.',
                                           'grounding_encoder.sam2_model.sam_mask_decoder.')) for name in differ)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and str(out) in again.stderr


def test_resumes_with_the_average_and_reports_the_whole_run(main_job, checkout, tmp_path):
    main_work_dir, first_log = main_job
    work_dir = shutil.copytree(main_work_dir, tmp_path / 'work')
    options = [option.replace('=4', '=6') for option in FEW_STEPS]
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', checkout / 'configs/dual_loop_tiny.py', '--work-dir', work_dir,
         '--resume', '--cfg-options', *options],
        capture_output=True, text=True, cwd=tmp_path,
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert 'step 6/6 |' in log and 'step 4/6 |' not in log
    assert torch.load(work_dir / 'iter_6.pth', weights_only=True)['ema']['num_updates'] == 6
    # The loss of step 2 and the held-out figures from before training are those of the first start, the loss of the end
    # that of step 6.
    for name in ('loop1/loss', 'held-out ciou'):
        first, resumed = (table_row(text, name) for text in (first_log, log))
        assert first[0] == resumed[0]
    [scalars] = [each for each in work_dir.glob('*/vis_data/scalars.json') if '"step": 6' in each.read_text()]
    last = [json.loads(line) for line in scalars.read_text().splitlines() if '"loop1/loss"' in line][-1]
    assert last['step'] == 6 and table_row(log, 'loop1/loss')[1] == f'{last["loop1/loss"]:.4g}'
    assert 'step 0/6 | held_out' not in log


def table_row(log: str, name: str) -> list[str]:
    """The cells of a line of the closing table, its name apart."""
    [line] = [line for line in log.splitlines() if line.startswith(f' {name} ')]
    return re.split(' {2,}', line.strip())[1:]


@pytest.mark.parametrize(('command', 'config'), [('tools/train.py', 'dual_loop_tiny'), ('xtuner', 'sft_tiny')])
def test_unknown_option_is_refused_with_the_nearest_name(checkout, tmp_path, command, config):
    if command == 'xtuner' and shutil.which('xtuner') is None:
        pytest.skip('the command xtuner is not on PATH; activate the environment')
    start = ['xtuner', 'train'] if command == 'xtuner' else [sys.executable, checkout / command]
    done = subprocess.run(
        [*start, checkout / f'configs/{config}.py', '--work-dir', tmp_path,
         '--cfg-options', 'model.data_preprocesor=1'],
        capture_output=True, text=True, cwd=tmp_path,
    )
    assert done.returncode != 0 or command == 'xtuner'  # which returns 0 whatever happens
    log = done.stdout + done.stderr
    assert 'Unknown setting model.data_preprocesor' in log, log[-1500:]
    assert 'did you mean model.data_preprocessor?' in log


@pytest.mark.parametrize(('option', 'named'), [
    ('train_dataloader.dataset.datasets.0.data_root=data/nowhere', ['data/nowhere', 'data_root', 'optional=True']),
    ('model.base.pretrained=assets/nowhere', ['assets/nowhere', 'model.base.pretrained', 'hf download']),
])
def test_a_missing_path_is_named_with_its_key(checkout, tmp_path, option, named):
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', checkout / 'configs/dual_loop_tiny.py', '--work-dir', tmp_path,
         '--cfg-options', option],
        capture_output=True, text=True, cwd=tmp_path,
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert all(part in last for part in named), last


REAL_CONFIG = """
__import__('dual_loop')
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, InfiniteSampler
from xtuner.dataset import ConcatDataset
from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset)

with read_base():
    from .dual_loop_tiny import *

sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
train_dataloader.update(dataset=dict(type=ConcatDataset, datasets=[
    dict(type=SAVPairDataset, data_root='{root}/sav_npz', **sizes),
    dict(type=SA1BDataset, data_root='{root}/sa1b', **sizes),
    dict(type=OpenImagesDataset, data_root='{root}/openimages', **sizes),
    dict(type=RefCOCODataset, data_root='{root}/ref_seg', **sizes),
]))
train_cfg['loop2_dataloader'].update(dataset=dict(type=ConcatDataset, datasets=[
    dict(type=DescribeAnythingDataset, data_root='{root}/dam', split=split, exclude_image_ids=(), **sizes)
    for split in ('COCOStuff', 'LVIS')
]))
val_dataloader.update(dataset=dict(
    type=RefCOCODataset, data_root='{root}/ref_seg', split='val', **sizes))
"""


def test_trains_on_real_pictures(real_samples, checkout, tmp_path):
    for name in ('dual_loop_tiny.py', '_base_'):
        source = checkout / 'configs' / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (tmp_path / 'real.py').write_text(REAL_CONFIG.replace('{root}', str(real_samples)))
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', tmp_path / 'real.py', '--work-dir', tmp_path / 'work',
         '--cfg-options', *FEW_STEPS],
        capture_output=True, text=True, cwd=tmp_path,
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert (tmp_path / 'work/iter_4.pth').is_file() and 'step 4/4 | loop 1: mask' in log
    # One of the npz files is cut off; it is replaced and recorded when it is drawn.
    records = (tmp_path / 'work/bad_samples.jsonl').read_text().splitlines()
    assert all('masklet_data_99999' in json.loads(line)['path'] for line in records)
