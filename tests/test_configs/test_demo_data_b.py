"""The data of world B: which scenes have captions, and that no part shares a picture with another."""

from collections import defaultdict
from hashlib import sha256

import pytest
from mmengine.config import Config

from dual_loop.datasets.from_config import build_dataset

PARTS = {'masks_b': 3, 'captions_b': 3, 'phrases_b': 1, 'refcoco_b': 1, 'descriptions_b': 1, 'captioned_b': 4}


@pytest.fixture(scope='module')
def config(checkout, tmp_path_factory):
    """With few scenes in another folder."""
    config = Config.fromfile(checkout / 'configs/_base_/demo_data_b.py')
    root = tmp_path_factory.mktemp('b')

    def smaller(node):
        if isinstance(node, dict) and 'prepare' in node:
            prepare = node['prepare']
            few = dict(root=str(root / prepare['root']), workers=1, images={15: 4, 75: 8, 300: 12}.get(
                prepare['images'], 8))
            node = node | dict(prepare=prepare | few, data_root=str(root / node.get('data_root', '')))
        if isinstance(node, dict):
            return {key: smaller(value) for key, value in node.items()}
        return [smaller(each) for each in node] if isinstance(node, list) else node

    return smaller({name: config[name].to_dict() for name in PARTS})


@pytest.fixture(scope='module')
def built(config):
    """Name of a part -> its data sets."""
    parts = {name: config[name] for name in ('masks_b', 'captions_b', 'phrases_b')}
    for name in ('captioned_b', 'refcoco_b', 'descriptions_b'):
        parts |= {f'{name} {key}': each for key, each in config[name].items()}
    return {name: [build_dataset(each) for each in part.get('datasets', [part])] for name, part in parts.items()}


def pictures(datasets):
    return {sha256(image.numpy().tobytes()).hexdigest() for dataset in datasets for row in range(len(dataset.index))
            for image, _ in dataset.frames(row)}


def test_no_part_shows_a_picture_of_another(built):
    assert list(built) == ['masks_b', 'captions_b', 'phrases_b', 'captioned_b 1', 'captioned_b 5', 'captioned_b 20',
                           'refcoco_b val', 'refcoco_b test', 'descriptions_b val', 'descriptions_b test']
    shown = {name: pictures(datasets) for name, datasets in built.items()}
    owners = defaultdict(set)
    for name, names in shown.items():
        for picture in names:
            owners[picture].add(name)
    shared = {frozenset(names) for names in owners.values() if len(names) > 1}
    assert shared == {frozenset({'captioned_b 1', 'captioned_b 5', 'captioned_b 20'}),
                      frozenset({'captioned_b 5', 'captioned_b 20'})}
    assert shown['captioned_b 1'] < shown['captioned_b 5'] < shown['captioned_b 20']


def test_who_has_words(built):
    assert all('caption' not in dataset.index for dataset in built['masks_b'])
    assert all(dataset.describes for dataset in built['captions_b'])
    words = [{dataset.words(row)['kind'] for row in range(len(dataset.index))} for dataset in built['captioned_b 20']]
    assert words[0] <= {'attribute', 'relation'} and words[1:] == [{'description'}] * 3


def test_the_numbers_that_are_stated(checkout):
    config = Config.fromfile(checkout / 'configs/_base_/demo_data_b.py')
    assert [config.captioned[percent].prepare.images * 2 for percent in ('1', '5', '20')] == [30, 150, 600]
    assert config.masks.prepare.images * 3 == 2400 == config.written.prepare.images
    assert 600 + 2400 == 3000
    seeds = [part.prepare.seed for part in (config.masks, config.written, *config.held_out.values())]
    seeds += list({part.prepare.seed for part in config.captioned.values()})
    assert len(set(seeds)) == len(seeds) == 5
