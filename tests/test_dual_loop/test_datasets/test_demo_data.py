"""The loaders on the demo data: counts from the files, and masks that lie on objects of the colour in the words."""

import json

import numpy as np
import pytest
import torch

from dual_loop.datasets import (
    DescribeAnythingDataset,
    OpenImagesDataset,
    RefCOCODataset,
    SA1BDataset,
    SAVPairDataset,
    load_refs,
)
from dual_loop.demo import make_demo_data
from dual_loop.demo.world import COLOURS

SIZE = dict(image_size=112, grounding_size=256)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp('demo') / 'data', images=12, seed=5, workers=1, progress=False)


def named_colours(text):
    return [word for word in text.lower().replace('.', ' ').replace(',', ' ').split() if word in COLOURS]


def shows(sample, colour, k=''):
    """Whether the pixels inside the mask are nearer to the colour than to any other, those of patterns aside."""
    pixels = sample[f'g_pixel_values{k}'].permute(1, 2, 0)[sample[f'masks{k}']].float()
    distances = torch.stack([(pixels - torch.tensor(rgb).float()).norm(dim=1) for rgb in COLOURS.values()])
    nearest = distances.argmin(0)[distances.min(0).values < 60]
    return len(nearest) > 0 and list(COLOURS)[nearest.bincount().argmax()] == colour


def test_refcoco_masks_lie_on_what_the_sentences_name(demo):
    refs = load_refs(demo / 'ref_seg' / 'refcoco' / 'refs(unc).p')
    checked = 0
    for split in ('train', 'val', 'testA', 'testB'):
        dataset = RefCOCODataset(demo / 'ref_seg', split=split, **SIZE)
        sentences = [sentence for ref in refs if ref['split'] == split for sentence in ref['sentences']]
        assert len(dataset) == len(sentences)
        for sample, sentence in zip(dataset, sentences, strict=True):
            assert (sample['caption'], sample['kind']) == (sentence['sent'].lower(), sentence['kind'])
            if sample['kind'] == 'attribute' and (colours := named_colours(sample['caption'])):
                assert shows(sample, colours[0]), sample['sample_id']
                checked += 1
        assert dataset.quarantine.count == 0
    assert checked > 10


def test_describe_anything_masks_lie_on_what_the_captions_name(demo):
    for split in ('COCOStuff', 'LVIS', 'SAV'):
        dataset = DescribeAnythingDataset(demo / 'dam', split, exclude_image_ids=(), **SIZE)
        regions = json.loads((demo / 'dam' / split / 'annotations.json').read_text())
        assert len(dataset) == sum(map(len, regions.values())) > 0
        for sample in dataset:
            assert shows(sample, named_colours(sample['caption'])[0]), sample['caption']
        assert dataset.quarantine.count == 0


def test_wordless_sources_are_whole(demo):
    annotations = [json.loads(file.read_text())['annotations'] for file in sorted((demo / 'sa1b').rglob('*.json'))]
    rows = (demo / 'openimages' / 'train-annotations-object-segmentation.csv').read_text().splitlines()
    sizes = dict(sa1b=sum(map(len, annotations)), openimages=len(rows) - 1, sav=12)
    for dataset in (SA1BDataset(demo / 'sa1b', **SIZE), OpenImagesDataset(demo / 'openimages', **SIZE),
                    SAVPairDataset(demo / 'sav', **SIZE)):
        assert len(dataset) == sizes[dataset.source] and len({s['sample_id'] for s in dataset}) == len(dataset)
        assert dataset.quarantine.count == 0


def test_frames_of_a_pair_show_the_same_object(demo):
    for sample in SAVPairDataset(demo / 'sav', **SIZE):
        means = [sample[f'g_pixel_values{k}'].permute(1, 2, 0)[sample[f'masks{k}']].float().mean(0) for k in '12']
        assert (means[0] - means[1]).norm() < 45
        assert not np.array_equal(sample['masks1'], sample['masks2'])
