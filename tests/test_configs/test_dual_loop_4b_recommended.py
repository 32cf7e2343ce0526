"""The recommended 4B run: what it changes, and that its evidence is what the results of the experiment say."""

import re
import statistics

import pytest
from mmengine.config import Config

pytest.importorskip('xtuner')

from dual_loop.models.dual_loop_model import build_loops
from dual_loop.proof.results import read_results

EVIDENCE = re.compile(r'(\d\.\d{3}) / (\d\.\d{3})')


@pytest.fixture(scope='module')
def config(checkout, tmp_path_factory):
    """As dumped into the work dir."""
    file = tmp_path_factory.mktemp('dumped') / 'config.py'
    Config.fromfile(checkout / 'configs/dual_loop_4b_recommended.py').dump(file)
    return Config.fromfile(file)


def test_only_the_loops_and_their_data_differ(config, checkout, tmp_path):
    Config.fromfile(checkout / 'configs/dual_loop_4b.py').dump(tmp_path / 'config.py')
    of_4b = Config.fromfile(tmp_path / 'config.py')
    changed = {key for key in config if config[key] != of_4b.get(key)}
    assert changed == {'model', 'train_cfg', 'train_dataloader'} and config.model.base == of_4b.model.base
    loops = build_loops(config.model)
    assert [*loops] == ['loop1', 'loop2', 'supervised'] and loops['loop1'].bridge is None
    assert loops['loop1'].max_caption_len == loops['loop2'].max_caption_len == of_4b.model.max_caption_len
    supervised = config.train_cfg.pop('loop_dataloaders').supervised
    assert config.train_cfg == of_4b.train_cfg
    masks, written = config.train_dataloader.dataset.datasets, of_4b.train_cfg.loop2_dataloader.dataset.datasets
    all_of_4b = [*of_4b.train_dataloader.dataset.datasets, *written]
    assert [*masks, *supervised.dataset.datasets] == all_of_4b and not any('tokenizer' in each for each in masks)


def test_its_evidence_is_that_of_the_results(checkout):
    """Each pair of figures is the mean of an arm's runs of one length, new names said / cIoU of new names."""
    groups = {}
    for result in read_results(checkout / 'docs/proof'):
        groups.setdefault((result['arm'], result['steps'], result['percent'], result['held_out']), []).append(
            result['after'])
    known = {tuple(f'{statistics.fmean(each[figure] for each in runs):.3f}'
                   for figure in ('cycle/accuracy_new_names', 'held_out/ciou_new')) for runs in groups.values()}
    told = EVIDENCE.findall((checkout / 'configs/dual_loop_4b_recommended.py').read_text())
    assert len(told) > 10 and {*told} <= known
