"""Samples of a benchmark are like those of data sets, the same at every call, with captions of the asked length."""

import torch

from dual_loop.benchmark.synthetic import SyntheticSamples
from dual_loop.datasets import collate_samples
from dual_loop.datasets.contract import violations

SIZES = dict(size=8, image_size=112, grounding_size=128, region_grid=4, tokenizer='assets/tiny')


def make(**options) -> SyntheticSamples:
    dataset = SyntheticSamples(**SIZES, **options)
    dataset.num_objects, dataset.describes = 1, dataset.caption_len > 0  # what the contract asks a data set for
    return dataset


def test_they_keep_the_contract():
    for dataset in (make(pairs=0.5), make(caption_len=12)):
        assert [list(violations(sample, dataset)) for sample in map(dataset.__getitem__, range(8))] == [[]] * 8
        batch = collate_samples([dataset[number] for number in range(8)])
        again = SyntheticSamples(**SIZES, pairs=dataset.pairs, caption_len=dataset.caption_len)
        assert torch.equal(batch['pixel_values'], collate_samples([again[n] for n in range(8)])['pixel_values'])
        assert len(batch['pixel_values']) == (12 if dataset.pairs else 8)


def test_captions_have_the_asked_length(vocabulary):
    assert all(sample['caption'] is None for sample in map(make().__getitem__, range(8)))
    whole = [len(vocabulary.encode(make(caption_len=12)[number]['caption'])) for number in range(8)]
    varied = [len(vocabulary.encode(make(caption_len=12, vary=True)[number]['caption'])) for number in range(8)]
    assert all(abs(length - 12) <= 1 for length in whole)
    assert len(set(varied)) > 2 and max(varied) <= 13
