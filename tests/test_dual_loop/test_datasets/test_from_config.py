"""Which data sets a config has, before and after they are built."""

import subprocess
import sys

import pytest
from mmengine.config import Config

from dual_loop.datasets import OpenImagesDataset, SAVPairDataset
from dual_loop.datasets.from_config import build_dataset, dataset_settings, loaders_with_captions


def loader(*datasets):
    return dict(dataset=dict(type='any.Concat', datasets=list(datasets)), batch_size=2)


def names(cfg):
    return {key: [each['data_root'] for each in group] for key, group in dataset_settings(Config(cfg)).items()}


def one(root, **more):
    return dict(type='SAVPairDataset', data_root=root, **more)


def test_loaders_of_both_loops_and_validation_in_order():
    cfg = dict(train_dataloader=loader(one('a'), one('b')), train_cfg=dict(loop2_dataloader=loader(one('c'))),
               val_dataloader=dict(dataset=one('d', dataset='refcoco')))
    assert names(cfg) == {'loop 1': ['a', 'b'], 'loop 2': ['c'], 'held out': ['d']}


def test_without_a_second_loop_the_first_is_training():
    assert names(dict(train_dataloader=loader(one('a')), train_cfg=None, val_dataloader=None)) == {'training': ['a']}
    assert names(dict(val_dataloader=loader(one('d')))) == {'held out': ['d']}


def test_nested_and_wrapped_data_sets_are_taken_apart():
    wrapped = dict(type='any.Repeat', dataset=one('b'), times=2)
    assert names(dict(train_dataloader=loader(one('a'), dict(type='any.Concat', datasets=[wrapped, one('c')])))) == {
        'training': ['a', 'b', 'c']}


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match='no data sets: none of train_dataloader, train_cfg.loop2_dataloader, train'):
        dataset_settings(Config(dict(model=dict())))
    with pytest.raises(ValueError, match='train_cfg.loop2_dataloader of the config has no dataset'):
        dataset_settings(Config(dict(train_cfg=dict(loop2_dataloader=dict(batch_size=2)))))


def test_built_by_class_and_by_name(sav_root, openimages_root, small):
    by_class = dict(type=SAVPairDataset, data_root=str(sav_root), **small)
    by_path = dict(type='dual_loop.datasets.OpenImagesDataset', data_root=str(openimages_root), **small)
    cfg = Config(dict(train_dataloader=loader(by_class), train_cfg=dict(loop2_dataloader=loader(by_path))))
    built = {name: [build_dataset(each) for each in group] for name, group in dataset_settings(cfg).items()}
    assert [type(each) for each in built['loop 1']] == [SAVPairDataset]
    assert [type(each) for each in built['loop 2']] == [OpenImagesDataset]
    assert [len(each) for group in built.values() for each in group] == [3, 2]


def test_the_shipped_config_needs_no_xtuner(checkout):
    code = ("import sys; sys.modules['xtuner'] = None\n"
            "from mmengine.config import Config\n"
            "from dual_loop.datasets.from_config import dataset_settings\n"
            "found = dataset_settings(Config.fromfile('configs/dual_loop_4b.py'))\n"
            "print({name: len(group) for name, group in found.items()}, found['loop 1'][0]['type'].__name__)")
    done = subprocess.run([sys.executable, '-c', code], cwd=checkout, capture_output=True, text=True)
    assert done.stdout.strip() == "{'loop 1': 6, 'loop 2': 6, 'held out': 1} SAVPairDataset", done.stderr[-1000:]


def test_every_loop_of_the_model_has_a_loader():
    import dual_loop.models  # noqa: F401  (their names)

    loops = [dict(type='MaskLoop'), dict(type='CaptionLoop'), dict(type='SupervisedLoop'),
             dict(type='SupervisedLoop', name='more')]
    further = dict(loop2_dataloader=loader(one('b')), loop_dataloaders=dict(supervised=loader(one('c')),
                                                                            more=loader(one('d'))))
    cfg = dict(model=dict(loops=loops), train_dataloader=loader(one('a')), train_cfg=further)
    assert names(cfg) == {'loop 1': ['a'], 'loop 2': ['b'], 'supervised': ['c'], 'more': ['d']}
    assert loaders_with_captions(Config(cfg)) == {'loop 2', 'supervised', 'more', 'held out'}
    alone = dict(model=dict(loops=loops[2:3]), train_dataloader=loader(one('a')))
    assert names(alone) == {'supervised': ['a']}
    with pytest.raises(ValueError, match='model.loops names NoLoop, which is not registered'):
        dataset_settings(Config(dict(model=dict(loops=[dict(type='NoLoop')]), train_dataloader=loader(one('a')))))


@pytest.mark.parametrize('settings, message', [
    (dict(data_root='x'), 'type=None is no data set'),
    (dict(type='SAVPairDatset', data_root='x'), r"'SAVPairDatset' is no data set \(did you mean SAVPairDataset\?\)"),
    (dict(type='nowhere.SAVPairDataset', data_root='x'), 'is no data set'), (dict(type=str), 'is no data set'),
    (dict(type=3), 'is no data set'),
    (dict(type='RefCOCODataset', data_root='x', imagesize=3), "no argument 'imagesize'; did you mean image_size"),
    (dict(type=SAVPairDataset, data_root='x', zzz=3), "SAVPairDataset has no argument 'zzz'$")])
def test_a_wrong_type_or_argument_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(settings)
