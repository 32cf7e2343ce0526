"""A world of stripes and a stub that knows what it says and finds, so every figure can be told by hand."""

import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dual_loop.datasets import BadSample, SAVPairDataset
from dual_loop.datasets.index import Table
from dual_loop.evaluation.cycle import caption_metrics, cycle_metrics, evaluate_cycle
from dual_loop.evaluation.cycle_probe import Probe, derangement, object_rows
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.processes import Processes
from dual_loop.evaluation.results import read_results, write_results

SIDE = 8


class Stripes:
    """Object k is column k of its picture; every second one has words; in a second frame it is columns k and k + 1."""

    data_root = Path('/somewhere/stripes')

    def __init__(self, objects: int, source: str = 'stripes', pairs: bool = False, per_image: int = 1, bad: tuple = (),
                 empty: tuple = ()):
        self.source, self.pairs, self.per_image, self.bad, self.empty = source, pairs, per_image, bad, empty
        self.index, self.index_digest = Table.of(object=list(range(objects))), f'{objects}'

    def sample_id(self, row):
        return f'object{row}'

    def path(self, row):
        return self.data_root / f'{row // self.per_image}.png'

    def identity(self, row):
        return dict(image_key=f'{self.source}:{self.path(row)}')

    def words(self, row):
        return dict(caption=f'words {row}' if row % 2 else None)

    def frames(self, row):
        if row in self.bad:
            raise BadSample('is cut off', self.path(row))
        for frame in range(1 + self.pairs):
            mask = np.zeros((SIDE, SIDE), bool)
            mask[:, row:row + 1 + frame] = row not in self.empty
            yield torch.full((3, SIDE, SIDE), row, dtype=torch.uint8), mask


class Stub:
    """Says 'thing k.' of column k, but the same of 2 and 3; never ends on 4; says nothing of 5.

    Finds the named column where the picture is that of the named object, else says no [SEG]; for ``words k`` the upper
    half of column k; without words everything.
    """

    def __init__(self, network=None, vocabulary=None):
        pass

    def prepare(self, image):
        return image

    def caption_regions(self, pictures, regions, max_new_tokens):
        said = []
        for picture, masks in zip(pictures, regions, strict=True):
            (mask, ) = masks
            number = int(mask[0].nonzero()[0])
            assert number == picture[0, 0, 0] and mask.sum() == SIDE
            said.append([SimpleNamespace(text='' if number == 5 else f'thing {2 if number == 3 else number}.',
                                         ended=number != 4)])
        return said

    def segment(self, pictures, texts, max_new_tokens, protocol):
        return [[self.find(picture, text) for text in each] for picture, each in zip(pictures, texts, strict=True)]

    def find(self, picture, text):
        mask, (word, _, number) = torch.zeros(SIDE, SIDE, dtype=torch.bool), text.strip('.').partition(' ')
        if not text:
            mask[:] = True
        elif word == 'words':
            mask[:4, int(number)] = True
        elif int(number) == picture[0, 0, 0]:
            mask[:, int(number)] = True
        return SimpleNamespace(mask=mask, has_seg=bool(mask.any()))


@pytest.fixture
def evaluate(monkeypatch, vocabulary):
    loaded = Loaded(None, vocabulary, dict(name='stub', fingerprint='0', checkpoint=None, averages=False, dtype='fp32'))
    monkeypatch.setattr(loaded, 'predictor', Stub)

    def run(sources, **options):
        if not isinstance(sources, dict):
            sources = dict(stripes=sources)
        return evaluate_cycle(loaded, sources, 'world', **dict(batch_size=2, num_workers=0) | options)

    return run


def test_figures_of_every_condition_and_frame(evaluate):
    results = evaluate(Stripes(4, pairs=True))
    # Column k has 8 pixels, in the other frame 16; 3 is described as 2, which is not in its picture.
    expected = {
        'giou/true/same': 4 / 8, 'ciou/true/same': 8 / 16, 'no_seg_rate/true/same': 0,
        'giou/generated/same': 3 / 4, 'ciou/generated/same': 24 / 32, 'no_seg_rate/generated/same': 1 / 4,
        'giou/empty/same': 8 / 64, 'ciou/empty/same': 32 / 256, 'no_seg_rate/empty/same': 0,
        'giou/true/paired': 4 / 16, 'ciou/true/paired': 8 / 32, 'no_seg_rate/true/paired': 0,
        'giou/generated/paired': 3 / 4 * 8 / 16, 'ciou/generated/paired': 24 / 64,
        'no_seg_rate/generated/paired': 1 / 4,
        'giou/empty/paired': 16 / 64, 'ciou/empty/paired': 64 / 256, 'no_seg_rate/empty/paired': 0,
    }
    metrics = results['metrics']
    assert {name: metrics[name] for name in expected} == expected
    shuffled = [each for each in results['samples'] if each['condition'] == 'shuffled' and each['frame'] == 'same']
    generated = {each['sample_id']: each['text'] for each in results['samples'] if each['condition'] == 'generated'}
    assert Counter(each['text'] for each in shuffled) == Counter(generated.values())
    # By hand only the objects that got the other one's equal words find something.
    found = sum(each['text'] == f'thing {each["sample_id"][-1]}.' for each in shuffled)
    assert metrics['giou/shuffled/same'] == found / 4 and metrics['no_seg_rate/shuffled/same'] == 1 - found / 4
    assert results['counts'] == dict(images=4, sentences=2 * (4 + 4 + 4 + 2), objects=4, left_out=0)
    [sample] = [each for each in results['samples'] if each['sample_id'] == 'object1' and each['condition'] == 'true'
                and each['frame'] == 'paired']
    assert sample == dict(image='stripes:1.png', sample_id='object1', source='stripes', condition='true',
                          frame='paired', text='words 1', intersection=4, union=16, seg=True)


def test_shuffled_words_are_those_of_another_object(evaluate):
    results = evaluate(Stripes(3))
    generated, shuffled = ({each['sample_id']: each['text'] for each in results['samples']
                            if each['condition'] == condition} for condition in ('generated', 'shuffled'))
    assert sorted(generated.values()) == sorted(shuffled.values()) == ['thing 0.', 'thing 1.', 'thing 2.']
    assert all(shuffled[name] != text for name, text in generated.items())
    assert results['metrics']['giou/shuffled/same'] == 0 and results['metrics']['no_seg_rate/shuffled/same'] == 1


def test_figures_of_descriptions(evaluate, vocabulary):
    metrics = evaluate(Stripes(6))['metrics']
    assert metrics['duplicates'] == 2 / 6 and metrics['empty'] == 1 / 6
    assert metrics['hit_max_len'] == pytest.approx(1 / 6)
    captions = [dict(text=text, ended=True, problem='') for text in ('red cup', 'red cup', 'cup')]
    captions.append(dict(text='', ended=True, problem='is cut off'))
    red, cup, other = ([*vocabulary.encode(text)] for text in ('red', ' cup', 'cup'))
    grams = [(red + cup), (red + cup), other]
    assert vocabulary.encode('red cup') == red + cup, 'else this counts other tokens'
    ones = [token for gram in grams for token in gram]
    twos = [pair for gram in grams for pair in zip(gram, gram[1:])]
    assert caption_metrics(captions, vocabulary) == dict(
        caption_len=len(ones) / 3, distinct_1=len(set(ones)) / len(ones), distinct_2=len(set(twos)) / len(twos),
        hit_max_len=0, duplicates=2 / 3, empty=0)


def test_any_number_of_processes_gives_the_same_results(evaluate, tmp_path):
    """Also more of them than batches."""
    files = []
    for size in (1, 2, 3, 8):
        store, results = dist.HashStore(), {}

        def run(rank: int, size=size, store=store, results=results) -> None:
            processes = Processes()
            processes.rank, processes.size, processes._store = rank, size, store
            results[rank] = evaluate(Stripes(7, pairs=True, per_image=2), processes=processes)

        threads = [threading.Thread(target=run, args=(rank, )) for rank in range(size)]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]
        assert sorted(results) == list(range(size)) and all(results[rank] is None for rank in range(1, size))
        results[0].pop('timing')
        files.append(write_results(tmp_path / f'{size}.json', results[0] | dict(timing={})).read_text())
    assert len(set(files)) == 1
    assert read_results(tmp_path / '1.json')['counts']['objects'] == 7


@pytest.mark.parametrize('sizes', [(1, 1), (2, 1, 1), (3, 3), (2, 2, 2, 1), (1, ) * 9, (4, 2, 1, 1)])
def test_descriptions_go_to_another_picture_each_once(sizes):
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(groups))
        shuffled = [groups[place] for place in order]
        others = derangement(shuffled, seed)
        assert sorted(others) == list(range(len(groups)))
        assert all(shuffled[place] != shuffled[other] for place, other in enumerate(others))


@pytest.mark.parametrize('sizes, alike', [((3, ), 3), ((3, 1), 2), ((5, 1, 1), 3), ((4, 3), 1)])
def test_where_a_picture_has_most_objects_as_few_as_possible_stay_in_it(sizes, alike):
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    for seed in range(20):
        others = derangement(groups, seed)
        assert sorted(others) == list(range(len(groups)))
        assert all(place != other for place, other in enumerate(others)), 'an object got its own description'
        assert sum(groups[place] == groups[other] for place, other in enumerate(others)) == alike


def test_the_exchange_is_fixed_and_no_mere_shift():
    assert derangement(range(20)) == derangement(range(20)) != derangement(range(20), seed=1)
    assert len({(other - place) % 20 for place, other in enumerate(derangement(range(20)))}) > 3


def test_an_object_that_cannot_be_read_is_left_out_and_named(evaluate):
    results = evaluate(Stripes(7, bad=(2, ), empty=(6, )))
    assert results['counts']['objects'] == 5 and results['counts']['left_out'] == 2
    assert results['dataset']['left_out'] == ['stripes, object2: is cut off (/somewhere/stripes/2.png)',
                                              'stripes, object6: the mask is empty (/somewhere/stripes/6.png)']
    assert {each['sample_id'] for each in results['samples']} == {f'object{row}' for row in (0, 1, 3, 4, 5)}
    generated = Counter(each['text'] for each in results['samples'] if each['condition'] == 'generated')
    assert generated == Counter(each['text'] for each in results['samples'] if each['condition'] == 'shuffled')


def test_too_few_objects_are_refused(evaluate):
    with pytest.raises(ValueError, match='stripes: 1 objects'):
        evaluate(Stripes(1))
    with pytest.raises(ValueError, match='can be read: stripes, object0: is cut off'):
        evaluate(Stripes(2, bad=(0, )))


def test_several_sources_exchange_descriptions_and_stay_apart(evaluate):
    results = evaluate(dict(one=Stripes(3), two=Stripes(3)))
    assert len(results['samples']) == 2 * (3 * 3 + 1)
    assert {each['image'] for each in results['samples']} == {f'{name}:{row}.png' for name in ('one', 'two')
                                                             for row in range(3)}


def test_objects_are_taken_once_and_evenly():
    sentences = Table.of(image=[1, 1, 1, 2, 2, 3, 3, 3], object=[7, 7, 8, 7, 7, 9, 9, 5], caption=list('abcdefgh'))
    assert object_rows(SimpleNamespace(index=sentences)) == [0, 2, 3, 5, 7]
    assert object_rows(SimpleNamespace(index=sentences), 2) == [0, 3]
    plain = SimpleNamespace(index=Table.of(file=list(range(10))))
    assert object_rows(plain, 4) == [0, 2, 5, 7] and object_rows(plain, 30) == list(range(10))
    assert object_rows(SimpleNamespace(index=Table.of(object=[])), 4) == []


def test_metrics_of_frames_and_conditions_that_are_not_there_are_not_made_up():
    sample = dict(condition='empty', frame='same', intersection=1, union=4, seg=True)
    assert cycle_metrics([sample]) == {'giou/empty/same': 0.25, 'ciou/empty/same': 0.25, 'no_seg_rate/empty/same': 0.0}


def test_frames_of_a_pair_come_at_their_original_size(tmp_path):
    random = np.random.default_rng(0)
    arrays = {f'frame{number}': random.integers(0, 256, (30, 40, 3), dtype=np.uint8) for number in (1, 2)}
    arrays |= {f'mask{number}': random.random((30, 40)) < 0.3 for number in (1, 2)}
    np.savez(tmp_path / 'masklet_data_00000.npz', **arrays)
    np.savez(tmp_path / 'masklet_data_00001.npz', **arrays)
    probe = Probe(dict(sav=SAVPairDataset(tmp_path)), lambda image: image, batch_size=2)
    described, found = probe[0], probe[1]
    assert not described.finds and [len(each.pictures) for each in described.objects] == [1, 1] and found.finds
    for each in found.objects:
        for number, image, target in zip((1, 2), each.pictures, each.targets, strict=True):
            assert np.array_equal(image.permute(1, 2, 0), arrays[f'frame{number}'])
            assert np.array_equal(target, arrays[f'mask{number}'])
    assert probe.identity(0) == dict(image='sav:masklet_data_00000.npz', sample_id='masklet_data_00000', source='sav')


def test_a_tiny_model_goes_through_the_cycle(build_base, vocabulary, tmp_path):
    model = build_base().eval()
    with torch.no_grad():
        head = model.network.language_model.lm_head.weight
        head[model.vocabulary.seg_id] = head[[5, 37, 411]].sum(dim=0)
    random = np.random.default_rng(0)
    for name in range(3):
        masks = np.zeros((2, 50, 60), bool)
        masks[0, 5:20, name:30] = masks[1, 30:40, 20:50] = True
        frames = random.integers(0, 256, (2, 50, 60, 3), dtype=np.uint8)
        np.savez(tmp_path / f'masklet_data_{name:05d}.npz', frame1=frames[0], frame2=frames[1], mask1=masks[0],
                 mask2=masks[1])
    loaded = Loaded(model.network, vocabulary, dict(name='tiny', fingerprint='0', checkpoint=None, averages=False,
                                                    dtype='fp32'))
    sources = dict(sav=SAVPairDataset(tmp_path))
    forced, generated = (evaluate_cycle(loaded, sources, 'sav', protocol, 2, 8, num_workers=0)
                         for protocol in ('forced', 'generate'))
    assert len(forced['samples']) == len(generated['samples']) == 3 * 2 * 3
    assert all(each['seg'] for each in forced['samples']) and forced['protocol'] == 'forced'
    for results in (forced, generated):
        for each in results['samples']:
            size = 30 * 10 if each['frame'] == 'paired' else 15 * (30 - int(each['sample_id'][-1]))
            assert max(size, each['intersection']) <= each['union'] and (each['seg'] or each['union'] == size)
    texts = [{each['text'] for each in results['samples'] if each['condition'] == 'generated'}
             for results in (forced, generated)]
    assert texts[0] == texts[1] and len(texts[0]) > 1
