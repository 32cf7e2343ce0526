"""scenes.jsonl, found again from the samples of the data sets."""

import json

import numpy as np
import pytest

from dual_loop.datasets import DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset, SAVPairDataset
from dual_loop.demo import make_demo_data
from dual_loop.demo.generation import scene_rng
from dual_loop.demo.rendering import draw_scene
from dual_loop.demo.truth import SCENES, read_objects
from dual_loop.demo.world import NAMED, B
from dual_loop.evaluation.attribute_accuracy import named_attributes
from dual_loop.evaluation.scene_truth import SceneTruth

SIZE = dict(image_size=56, grounding_size=64)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp('b') / 'data', images=24, seed=5, workers=1, progress=False,
                          world='b', split='train')


@pytest.fixture(scope='module')
def datasets(root):
    return [SAVPairDataset(root / 'sav', **SIZE), SA1BDataset(root / 'sa1b', **SIZE),
            OpenImagesDataset(root / 'openimages', **SIZE),
            RefCOCODataset(root / 'ref_seg', exclude_image_ids=(), **SIZE),
            *(DescribeAnythingDataset(root / 'dam', split, exclude_image_ids=(), **SIZE)
              for split in ('COCOStuff', 'LVIS', 'SAV'))]


def test_every_sample_of_every_source_has_its_object(datasets):
    for dataset in datasets:
        truth, seen = SceneTruth(dataset), set()
        for row in range(len(dataset.index)):
            item = truth[row]
            image, mask = next(iter(dataset.frames(row)))
            ys, xs = np.nonzero(mask)
            x, y, width, height = item['box']
            # Open Images stores smaller masks, RefCOCO outlines.
            assert np.allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [x, y, x + width, y + height], atol=2)
            caption = dataset.words(row).get('caption')
            said = named_attributes(caption) if caption else {}
            assert all(value in (None, item[name]) for name, value in said.items()), caption
            assert None not in said.values() or not dataset.describes
            seen.add(item['name'])
        named = {line for line in read_objects(truth._folder)}
        assert seen == named, dataset.source
        assert not dataset.quarantine.count


def test_a_line_says_what_was_drawn(root):
    scenes = [json.loads(line) for line in (root / 'sa1b' / SCENES).read_text().splitlines()]
    assert [scene['scene'] for scene in scenes] == list(range(1, 25))
    for index, line in enumerate(scenes):
        drawn = draw_scene(scene_rng(5, 'sa1b', index), B)
        assert (line['world'], line['width'], line['height']) == ('b', drawn.scene.width, drawn.scene.height)
        assert line['background'] == drawn.scene.background
        assert [[item[name] for name in (*NAMED, 'accent')] for item in line['objects']] == [
            [getattr(item, name) for name in (*NAMED, 'accent')] for item in drawn.scene.objects]
        assert [item['visible'] for item in line['objects']] == pytest.approx(drawn.visible, abs=1e-4)


def test_all_objects_of_a_scene_are_there_and_those_of_no_sample_have_no_name(root):
    scenes = [json.loads(line) for line in (root / 'dam' / 'LVIS' / SCENES).read_text().splitlines()]
    assert all([item['name'] is not None for item in scene['objects']][:2] == [True, True] for scene in scenes)
    assert any(item['name'] is None for scene in scenes for item in scene['objects'])


def test_the_kinds_of_sentences(datasets):
    assert set(datasets[3].index['kind']) == {'attribute', 'relation'}
    assert all({sample['kind'] for sample in dataset} == {'description'} for dataset in datasets[4:])


def test_the_split_holds_for_all_images(root, datasets):
    assert len(set(datasets[3].index['image'])) == 24
    with pytest.raises(ValueError, match="has no split 'val', only train"):
        RefCOCODataset(root / 'ref_seg', split='val', **SIZE)


def test_other_data_has_no_truth(tmp_path):
    assert read_objects(tmp_path) == {}


@pytest.mark.parametrize('line', ['{"scene": 1', '{"scene": 1}', '[]'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, line):
    (tmp_path / SCENES).write_text(line + '\n')
    with pytest.raises(ValueError, match=rf'{tmp_path}/{SCENES} is no list of scenes.*remove the folder'):
        read_objects(tmp_path)
