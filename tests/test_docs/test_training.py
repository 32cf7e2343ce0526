"""The snippet of docs/training.md on stock samplers is a config whose loaders are built."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, WandbVisBackend

pytest.importorskip('xtuner')

from xtuner.dataset.samplers import LengthGroupedSampler

import dual_loop.registered  # noqa: F401
from dual_loop.engine.data_order import build_dataloader


@pytest.fixture
def config(code_blocks, checkout, tmp_path):
    """The block as configs/my_run.py, on a small demo world."""
    [text] = [text for language, text in code_blocks('training.md')['Settings'] if language == 'python']
    shutil.copytree(checkout / 'configs', tmp_path / 'configs')
    base = tmp_path / 'configs/_base_/demo_data.py'
    base.write_text(base.read_text().replace("'data/", f"'{tmp_path}/").replace('images=400', 'images=12'))
    (tmp_path / 'configs/my_run.py').write_text(text)
    return tmp_path / 'configs/my_run.py'


@pytest.mark.parametrize('dumped', [False, True])
def test_the_sampler_and_the_repeats_are_those_of_the_page(config, checkout, dumped):
    cfg = Config.fromfile(config)
    if dumped:
        cfg.dump(config.with_name('dumped.py'))
        cfg = Config.fromfile(config.with_name('dumped.py'))
    count = cfg.train_cfg.accumulative_counts
    runner = SimpleNamespace(seed=0, build_dataloader=Runner.build_dataloader)
    loader = build_dataloader(runner, cfg.train_dataloader, count)
    refcoco = loader.dataset.datasets[-1]
    assert len(refcoco) == 4 * len(refcoco.index)
    expected = list(LengthGroupedSampler(loader.dataset, loader.batch_sampler.batch_size * count, seed=0,
                                         length_property='modality_length'))
    order = [index for batch in loader.batch_sampler for index in batch]
    assert order == expected and len(set(order)) == len(loader.dataset)


def test_the_option_of_the_page(checkout):
    cfg = Config.fromfile(checkout / 'configs/dual_loop_tiny.py')
    name, value = 'train_dataloader.sampler.type', 'GroupedByLengthSampler'
    assert f'`{name}={value}`' in (checkout / 'docs/training.md').read_text()
    cfg.merge_from_dict({name: value})
    cfg.train_dataloader.dataset = list(range(20))
    with pytest.raises(AttributeError, match='modality_length'):  # and no TypeError for shuffle=True
        build_dataloader(SimpleNamespace(seed=0, build_dataloader=Runner.build_dataloader), cfg.train_dataloader, 1)


def test_the_logs_of_the_page(code_blocks, checkout, tmp_path):
    """TensorBoard is on in the configs and installed; the line for Weights & Biases adds its backend to a config."""
    blocks = code_blocks('training.md')['Watch it']
    [line] = [text for language, text in blocks if language == 'python']
    assert ('bash', 'tensorboard --logdir work_dirs\n') in blocks
    program = Path(sys.executable).with_name('tensorboard')
    assert program.is_file() or shutil.which('tensorboard')
    shutil.copytree(checkout / 'configs', tmp_path / 'configs')
    own = tmp_path / 'configs/own.py'
    base = 'from mmengine.config import read_base\n\nwith read_base():\n    from .dual_loop_tiny import *\n\n'
    own.write_text(base + line)
    types = [backend['type'] for backend in Config.fromfile(own).visualizer.vis_backends]
    assert [VISBACKENDS.get(each) if isinstance(each, str) else each for each in types] == [
        LocalVisBackend, TensorboardVisBackend, WandbVisBackend]
