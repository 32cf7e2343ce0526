"""Settings that nothing reads are refused by name; settings that something reads pass."""
import pytest
from mmengine.config import Config

from dual_loop.engine.config_check import check_config_keys

CONFIG = '''
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch.optim import AdamW
from torch.utils.data import TensorDataset

batch_size = 2
model = dict(type=BaseModel, sizes=dict(depth=3))
train_dataloader = dict(batch_size=batch_size, sampler=dict(type=DefaultSampler), dataset=dict(type=TensorDataset))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-2))
train_cfg = dict(type=IterBasedTrainLoop, max_iters=4)
param_scheduler = [dict(type='LinearLR', by_epoch=False), dict(type='CosineAnnealingLR', T_max=4)]
default_hooks = dict(logger=dict(type=LoggerHook), checkpoint=dict(type=CheckpointHook, interval=2))
custom_hooks = [dict(type='EMAHook')]
'''


@pytest.fixture
def load(tmp_path):
    """Load the config with `options` merged in, as xtuner's train command does."""

    def load_with(options: dict) -> Config:
        path = tmp_path / 'config_of_test.py'
        path.write_text(CONFIG)
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options)
        cfg.work_dir = str(tmp_path / 'work')
        cfg.launcher = 'none'
        return cfg

    return load_with


@pytest.mark.parametrize('option', [
    {},
    {'train_dataloader.batch_size': 8},
    {'train_dataloader.num_workers': 2},
    {'train_dataloader.sampler.shuffle': False},
    {'model.init_cfg': None},
    {'model.sizes.depth': 4},
    {'optim_wrapper.accumulative_counts': 2},
    {'optim_wrapper.clip_grad.max_norm': 1.0},
    {'optim_wrapper.optimizer.weight_decay': 0.1},
    {'optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult': 0.1},
    {'param_scheduler.0.start_factor': 0.1},
    {'param_scheduler.1.convert_to_iter_based': True},
    {'custom_hooks.0.momentum': 0.1},
    {'custom_hooks.0.priority': 'LOW'},
    {'custom_hooks.0.gamma': 7},
    {'default_hooks.timer': None},
    {'default_hooks.sampler_seed.type': 'DistSamplerSeedHook'},
    {'default_hooks.checkpoint.max_keep_ckpts': 1},
    {'train_cfg.val_interval': 5},
    {'randomness.seed': 1},
    {'randomness.diff_rank_seed': True},
    {'env_cfg.dist_cfg.backend': 'gloo'},
    {'visualizer.type': 'Visualizer'},
    {'resume': True},
    {'load_from': 'x.pth'},
    {'experiment_name': 'x'},
    {'log_level': 'WARNING'},
])
def test_settings_that_are_read(load, option):
    check_config_keys(load(option))


@pytest.mark.parametrize('option, key, near', [
    ({'max_stepz': 3}, 'max_stepz', None),
    ({'train_dataloder.batch_size': 3}, 'train_dataloder', 'train_dataloader'),
    ({'train_dataloader.btch_size': 3}, 'train_dataloader.btch_size', 'train_dataloader.batch_size'),
    ({'train_dataloader.sampler.shufle': 3}, 'train_dataloader.sampler.shufle', 'train_dataloader.sampler.shuffle'),
    ({'model.int_cfg': 3}, 'model.int_cfg', 'model.init_cfg'),
    ({'model.sizes.dept': 3}, 'model.sizes.dept', 'model.sizes.depth'),
    ({'optim_wrapper.optimizer.wieght_decay': 3}, 'optim_wrapper.optimizer.wieght_decay',
     'optim_wrapper.optimizer.weight_decay'),
    ({'optim_wrapper.clip_grad.max_nrom': 3}, 'optim_wrapper.clip_grad.max_nrom', 'optim_wrapper.clip_grad.max_norm'),
    ({'param_scheduler.0.start_facter': 3}, 'param_scheduler.0.start_facter', 'param_scheduler.0.start_factor'),
    ({'train_cfg.max_itres': 3}, 'train_cfg.max_itres', 'train_cfg.max_iters'),
    ({'randomness.sede': 3}, 'randomness.sede', 'randomness.seed'),
    ({'default_hooks.chekpoint.interval': 3}, 'default_hooks.chekpoint', 'default_hooks.checkpoint'),
    ({'default_hooks.logger.intervall': 3}, 'default_hooks.logger.intervall', 'default_hooks.logger.interval'),
    ({'env_cfg.dist_cfg.backnd': 3}, 'env_cfg.dist_cfg.backnd', 'env_cfg.dist_cfg.backend'),
])
def test_misspelt_settings(load, option, key, near):
    with pytest.raises(ValueError) as caught:
        check_config_keys(load(option))
    message = str(caught.value)
    assert message.startswith(f'Unknown setting {key}:') and 'config_of_test.py' in message
    assert near is None or f'did you mean {near}?' in message


def test_changing_a_name_that_only_the_file_uses(load):
    with pytest.raises(ValueError, match='batch_size=8 changes nothing'):
        check_config_keys(load({'batch_size': 8}))


def test_dumped_config_checks_itself(load, tmp_path):
    """The copy in work_dir trains again, and a run from it that overwrites it is still compared with what was read."""
    cfg = load({})
    dumped = tmp_path / 'work' / 'config_of_test.py'
    dumped.parent.mkdir()
    cfg.dump(dumped)
    again = Config.fromfile(dumped)
    check_config_keys(again)
    again.merge_from_dict({'train_dataloader.btch_size': 4})
    again.dump(dumped)  # what the runner does before it builds the loop
    with pytest.raises(ValueError, match='train_dataloader.btch_size'):
        check_config_keys(again)


def test_config_without_a_file():
    check_config_keys(Config(dict(anything=1)))
