"""The configuration of the real run: its values, its shapes, and that a dumped copy is the same run."""

import pytest
import torch
from mmengine.config import Config

pytest.importorskip('xtuner')

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.key_maps import is_carried, released_table
from llava_sam2.portable.network import Sa2VANetwork

# The published base recipe and the settings of docs/decisions.md, "Settings of the 4B run".
VALUES = {
    'model.base.pretrained': 'pretrained/Sa2VA-4B',
    'model.base.tokenizer': 'pretrained/Sa2VA-4B',
    'model.base.dtype': 'bfloat16',
    'model.base.trainable': ('mlp1', 'text_hidden_fcs', 'mask_decoder'),
    'model.base.lora': dict(r=128, alpha=256, dropout=0.05),
    'model.base.loss_mask': dict(weight=2.0, num_points=12544),
    'model.base.loss_dice': dict(weight=0.5),
    'model.base.compile': True,
    'model.base.memory_budget': 0.3,
    'model.base.network.mask_selection': 'predicted_iou',
    'model.bridge': 'gumbel',
    'model.topk': 512,
    'model.tau': 0.7,
    'model.max_caption_len': 256,
    'model.mask_ratio': 0.25,
    'model.answer_weight': 1.0,
    'model.denoise_weight': 0,
    'train_cfg.surgery': dict(rule='orthogonal', beta=0.5, max_grad_norm=1.0),
    'train_cfg.max_steps': 1500,
    'train_cfg.accumulative_counts': 2,
    'train_dataloader.batch_size': 16,
    'train_cfg.loop2_dataloader.batch_size': 16,
    'optim_wrapper.optimizer.lr': 2e-5,
    'optim_wrapper.optimizer.betas': (0.9, 0.999),
    'optim_wrapper.optimizer.weight_decay': 0.05,
    'custom_hooks.0.decay': 0.999,
    'custom_imports.imports': ['dual_loop.registered'],
}
TYPES = {
    'model.type': 'dual_loop.models.DualLoopModel',
    'model.base.type': 'llava_sam2.model.VideoLLaVASAMModel',
    'optim_wrapper.optimizer.type': 'torch.optim.AdamW',
    'train_dataloader.dataset.type': 'xtuner.dataset.ConcatDataset',
    'train_dataloader.sampler.type': 'dual_loop.engine.length_groups.GroupedByLengthSampler',
    'train_cfg.loop2_dataloader.dataset.type': 'xtuner.dataset.ConcatDataset',
    'train_cfg.loop2_dataloader.sampler.type': 'dual_loop.engine.length_groups.GroupedByLengthSampler',
    'custom_hooks.0.type': 'dual_loop.engine.hooks.TeacherEMAHook',
}


@pytest.fixture(scope='module')
def config(checkout):
    return Config.fromfile(checkout / 'configs/dual_loop_4b.py')


@pytest.fixture(scope='module')
def dumped(config, tmp_path_factory):
    """The copy that mmengine leaves in the work dir."""
    file = tmp_path_factory.mktemp('dumped') / 'dual_loop_4b.py'
    config.dump(file)
    return Config.fromfile(file)


def value(config: Config, path: str):
    for key in path.split('.'):
        config = config[int(key)] if key.isdigit() else config[key]
    return config


@pytest.mark.parametrize('path', VALUES)
def test_value(config, dumped, path):
    for each in (config, dumped):
        found = value(each, path)
        assert (found.to_dict() if hasattr(found, 'to_dict') else found) == VALUES[path]


def test_types(dumped):
    assert {path: value(dumped, path) for path in TYPES} == TYPES


def test_the_samplers_repeat_no_batch_size(dumped):
    """So that --cfg-options train_dataloader.batch_size=8 needs nothing beside it."""
    for loader in (dumped.train_dataloader, dumped.train_cfg.loop2_dataloader):
        assert set(loader.sampler) == {'type'}


def test_schedule_is_in_steps(dumped):
    warm_up, cosine = dumped.param_scheduler
    assert warm_up.type.endswith('LinearLR') and cosine.type.endswith('CosineAnnealingLR')
    assert not warm_up.by_epoch and not cosine.by_epoch
    assert (warm_up.begin, warm_up.end) == (0, 75) and 75 == 0.05 * 1500
    assert (cosine.begin, cosine.end, cosine.eta_min) == (75, 1500, 0)
    assert 'clip_grad' not in dumped.optim_wrapper  # the loop clips


def test_data_sets(dumped):
    loop1, loop2 = (loader.dataset.datasets for loader in (dumped.train_dataloader,
                                                           dumped.train_cfg.loop2_dataloader))
    kinds = [each.type.rpartition('.')[2] for each in loop1]
    assert kinds == ['SAVPairDataset', 'SA1BDataset', 'OpenImagesDataset'] + 3 * ['RefCOCODataset']
    # SA-1B's cap of the earlier code counted pictures, 103 masks in each (51 328 in 500).
    assert [each.max_samples for each in loop1[:3]] == [200_000, 10_000 * 103, 100_000]
    assert [(each.dataset, each.split, each.split_by, each.repeats) for each in loop1[3:]] == [
        ('refcoco', 'train', 'unc', 1), ('refcoco+', 'train', 'unc', 1), ('refcocog', 'train', 'umd', 1)]
    assert {each.split for each in loop2} == {'SAV', 'COCOStuff', 'LVIS', 'Mapillary', 'OpenImages', 'PACO'}
    assert len(loop2) == 6
    assert [each.get('optional', False) for each in loop1] == [False, False, True, False, False, False]
    assert not any(each.get('optional') for each in loop2)
    for each in [*loop1, *loop2, dumped.val_dataloader.dataset]:
        assert (each.image_size, each.grounding_size, each.num_image_tokens) == (448, 1024, 256)
        assert each.data_root.startswith('data/')


def test_held_out_pictures_are_left_out_of_every_coco_source(dumped):
    on_coco = [each for each in dumped.train_dataloader.dataset.datasets if 'RefCOCO' in each.type]
    on_coco += [each for each in dumped.train_cfg.loop2_dataloader.dataset.datasets
                if each.split in ('COCOStuff', 'LVIS', 'PACO')]
    assert len(on_coco) == 6
    for each in on_coco:
        assert each.exclude_image_ids == dict(type='dual_loop.datasets.held_out_image_ids', data_root='data/ref_seg')


def test_network_has_the_released_names_and_shapes(dumped, released_4b):
    with torch.device('meta'):
        network = Sa2VANetwork(Sa2VAConfig(**dumped.model.base.network))
    state = network.state_dict()
    shapes = {}
    for name, parts in released_table({own: tensor.shape for own, tensor in state.items()}).items():
        shapes[name] = (max(part.rows.stop for part in parts), *state[parts[0].own].shape[1:])
    assert shapes == {name: shape for name, shape in released_4b.items() if not is_carried(name)}
    llm = network.config.llm_config
    assert (llm.rope_theta, llm.rms_norm_eps, llm.max_position_embeddings) == (1e6, 1e-6, 32768)
    assert network.config.num_image_tokens == 256 and network.config.vision_config.layer_norm_eps == 1e-6


def test_random_weights_beside_pretrained_ones_are_refused_with_the_way_to_go(dumped):
    from mmengine.registry import MODELS

    base = dumped.model.base.to_dict() | dict(random_weights=True)  # --cfg-options model.base.random_weights=True
    with pytest.raises(ValueError, match='not both.*configs/rehearsal_4b.py'):
        MODELS.build(base)


def test_missing_weights_are_named(dumped):
    from mmengine.registry import MODELS

    with pytest.raises(FileNotFoundError, match='no config.json in .*nowhere; point model.pretrained'):
        MODELS.build(dumped.model.base.to_dict() | dict(pretrained='pretrained/nowhere'))


@pytest.mark.parametrize(('run', 'more_loaders'), [
    ('4b', []), ('4b_recommended', [('train_cfg', 'loop_dataloaders', 'supervised')])])
def test_the_rehearsal_differs_in_weights_tokenizer_and_data_only(checkout, tmp_path, run, more_loaders):
    configs = []
    for name in (f'dual_loop_{run}', f'rehearsal_{run}'):
        Config.fromfile(checkout / f'configs/{name}.py').dump(tmp_path / f'{name}.py')
        configs.append(Config.fromfile(tmp_path / f'{name}.py').to_dict())
    real, rehearsed = configs
    base = dict(rehearsed['model']['base'])
    loaders = [('train_dataloader', ), ('train_cfg', 'loop2_dataloader'), ('val_dataloader', ), *more_loaders]
    for config in configs:
        for key in [key for key in config if key.startswith('rehearsal') or key in (
                'sizes', 'words', 'without_held_out', 'loop1_datasets', 'loop2_datasets', 'held_out_dataset')]:
            del config[key]
        for path in loaders:
            loader = config
            for key in path:
                loader = loader[key]
            sets = loader['dataset'].pop('datasets', None) or [loader.pop('dataset')]
            config.setdefault('formats', []).append(
                sorted((each['type'], each.get('dataset', 'refcoco'), each.get('split'), each['image_size'],
                        each['grounding_size'], 'exclude_image_ids' in each) for each in map(dict, sets)
                       if each.setdefault('split', 'train')))
        for key in ('pretrained', 'random_weights', 'tokenizer'):
            config['model']['base'].pop(key, None)
    assert rehearsed == real
    assert base['pretrained'] is None and base['random_weights']
    assert base['tokenizer'] == dict(type='llava_sam2.tokenizer.stand_in_tokenizer')
