import json
from types import SimpleNamespace

import pytest
import torch

from dual_loop.datasets import RefCOCODataset
from dual_loop.demo import make_demo_data
from dual_loop.evaluation.bootstrap import resample
from dual_loop.evaluation.loading import load_model
from dual_loop.evaluation.predictor import Picture, Prediction
from dual_loop.evaluation.referring import ReferringBatches, evaluate_referring
from dual_loop.evaluation.results import read_results, write_results


def box(left, top, right, bottom) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


#: Sentence -> the box that is predicted (left, top, right, bottom), or None for an answer without [SEG].
SAID = {'half': (0, 0, 10, 10), 'all': (0, 0, 20, 10), 'silent': None, 'mute': None, 'twice': (0, 0, 12, 12),
        'nothing': None}
REFS = [
    (2, 'val', [box(0, 0, 20, 10)], ['half', 'all', 'silent']),  # 100 / 200, 200 / 200, 0 / 200
    (1, 'val', [box(0, 0, 8, 8), box(4, 4, 12, 12)], ['twice']),  # 64 + 64 - 16 = 112 / 144
    (3, 'val', [box(0, 0, 5, 4)], ['mute']),  # 0 / 20
    (3, 'val', [box(0, 0, 6, 5)], ['nothing']),  # 0 / 30
    (1, 'train', [box(0, 0, 9, 9)], ['never asked']),
]
SIZES = {1: (30, 40), 2: (48, 64), 3: (20, 50)}


class Oracle:
    """Answers with the boxes above, and notes what it is asked."""

    calls = []

    def prepare(self, image):
        return Picture(torch.zeros(1), torch.zeros(1), tuple(image.shape[1:]))

    def segment(self, pictures, texts, max_new_tokens, protocol):
        self.calls.append(([picture.size for picture in pictures], texts))
        return [[self.said(picture.size, text) for text in each] for picture, each in zip(pictures, texts)]

    def said(self, size, text):
        mask = torch.zeros(size, dtype=torch.bool)
        if SAID[text]:
            left, top, right, bottom = SAID[text]
            mask[top:bottom, left:right] = True
        return Prediction(f'says {text}', True, SAID[text] is not None, mask, None)


@pytest.fixture
def oracle(monkeypatch):
    monkeypatch.setattr(Oracle, 'calls', [])
    description = dict(name='oracle', fingerprint='f', dtype='fp32')
    return SimpleNamespace(description=description, predictor=Oracle)


@pytest.fixture
def dataset(write_refcoco):
    return RefCOCODataset(write_refcoco(SIZES, REFS), split='val')


def test_metrics_of_known_masks(oracle, dataset):
    results = evaluate_referring(oracle, dataset, num_workers=0)
    assert [(sample['text'], sample['intersection'], sample['union'], sample['seg']) for sample in results['samples']
            ] == [('twice', 112, 144, True), ('half', 100, 200, True), ('all', 200, 200, True),
                  ('silent', 0, 200, False), ('mute', 0, 20, False), ('nothing', 0, 30, False)]
    iou = 112 / 144
    assert results['metrics'] == {
        'ciou': 412 / 794, 'giou': (iou + 0.5 + 1) / 6, 'precision@0.5': 0.5, 'precision@0.6': 2 / 6,
        'precision@0.7': 2 / 6, 'precision@0.8': 1 / 6, 'precision@0.9': 1 / 6, 'no_seg_rate': 0.5}
    assert results['counts'] == dict(images=3, sentences=6, left_out=0)
    assert results['timing']['processes'] == 1 and results['timing']['sentences_per_second'] > 0


def test_overlapping_polygons_of_an_object_count_once(oracle, dataset):
    (sample, ) = (each for each in evaluate_referring(oracle, dataset, num_workers=0)['samples']
                  if each['text'] == 'twice')
    assert (sample['intersection'], sample['union']) == (112, 144)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_batch_shows_each_picture_once(oracle, dataset, num_workers):
    evaluate_referring(oracle, dataset, batch_size=3, num_workers=num_workers)
    assert Oracle.calls == [
        ([(30, 40), (48, 64)], [['twice'], ['half', 'all']]),
        ([(48, 64), (20, 50)], [['silent'], ['mute', 'nothing']])]


def test_parts_of_a_split(oracle, dataset):
    results = evaluate_referring(oracle, dataset, max_images=2, max_texts_per_image=2, num_workers=0)
    assert [sample['text'] for sample in results['samples']] == ['twice', 'half', 'all']
    assert results['counts']['images'] == 2
    assert (results['dataset']['max_images'], results['dataset']['max_texts_per_image']) == (2, 2)


def test_results_are_those_of_the_schema(oracle, dataset, tmp_path):
    results = evaluate_referring(oracle, dataset, 'forced', 4, 9, num_workers=0)
    read = read_results(write_results(tmp_path / 'out.json', results))
    assert {key: read[key] for key in ('task', 'protocol', 'prompt', 'batch_size', 'max_new_tokens')} == dict(
        task='referring', protocol='forced', prompt=' Please segment {} in this image.', batch_size=4,
        max_new_tokens=9)
    assert read['samples'][0] == dict(image='COCO_1.jpg', sample_id='COCO_1_1_100', text='twice', intersection=112,
                                      union=144, seg=True, answer='says twice')


def test_a_real_model_that_says_no_seg_is_scored(checkout, demo_root):
    """One token is too short an answer for one."""
    dataset = RefCOCODataset(demo_root, split='val')
    results = evaluate_referring(load_model(checkout / 'assets/tiny'), dataset, max_new_tokens=1, max_images=1,
                                 num_workers=0)
    assert results['metrics']['no_seg_rate'] == 1 and results['metrics']['giou'] == 0
    row_of = {dataset.sample_id(row): row for row in range(len(dataset))}
    for sample in results['samples']:
        row = row_of[sample['sample_id']]
        target = dataset.read_mask(row, *dataset.read_image(row).shape[1:])
        assert (sample['intersection'], sample['union']) == (0, target.sum())


def test_a_missing_image_stops_before_anything_is_asked(oracle, dataset):
    dataset.path(0).unlink()
    with pytest.raises(FileNotFoundError, match=r'COCO_2.jpg does not exist: put or link.*without some of its images'):
        evaluate_referring(oracle, dataset, num_workers=0)
    assert not Oracle.calls


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_damaged_image_stops_with_its_name(oracle, dataset, num_workers):
    dataset.path(0).write_bytes(b'no picture')
    with pytest.raises(ValueError, match='COCO_2.jpg.*get the file anew') as error:
        evaluate_referring(oracle, dataset, num_workers=num_workers)
    assert 'Traceback' not in str(error.value)


def test_an_empty_split_is_refused(oracle, write_refcoco):
    root = write_refcoco(SIZES, [*REFS, (1, 'testB', [box(0, 0, 5, 5)], [])])
    dataset = RefCOCODataset(root, split='testB', optional=True)
    with pytest.raises(ValueError, match="'testB', has no sentences"):
        evaluate_referring(oracle, dataset, num_workers=0)


def test_masks_have_the_size_of_the_picture_and_not_of_its_entry(write_refcoco):
    root = write_refcoco(SIZES, REFS)
    file = root / 'refcoco/instances.json'
    entries = json.loads(file.read_text())
    for image in entries['images']:
        del image['height'], image['width']
    file.write_text(json.dumps(entries))
    batches = ReferringBatches(RefCOCODataset(root, split='val'), lambda image: image, 16)
    assert [tuple(targets.shape) for targets in batches[0].targets] == [(1, 30, 40), (3, 48, 64), (2, 20, 50)]
    assert batches[0].targets[0][0].sum() == 112


def test_kinds_and_new_names_of_demo_data_have_figures_of_their_own(oracle, tmp_path, monkeypatch):
    root = make_demo_data(tmp_path / 'demo', images=20, seed=3, workers=1, progress=False, sources=['refcoco'],
                          world='b', split='val')
    monkeypatch.setattr(Oracle, 'said', lambda self, size, text: Prediction(
        '', True, True, torch.ones(size, dtype=torch.bool).tril(len(text)), None))
    results = evaluate_referring(oracle, RefCOCODataset(root / 'ref_seg', split='val'), num_workers=0)
    metrics, samples = results['metrics'], results['samples']
    parts = [name.removeprefix('ciou/') for name in metrics if name.startswith('ciou/')]
    assert parts == ['attribute', 'attribute/new', 'attribute/old', 'new', 'old', 'relation', 'relation/new',
                     'relation/old']
    for part in parts:
        of_part = [each for each in samples if {*part.split('/')} <= {each['kind'], each['names']}]
        assert 0 < len(of_part) < len(samples)
        ciou = sum(each['intersection'] for each in of_part) / sum(each['union'] for each in of_part)
        assert metrics[f'ciou/{part}'] == pytest.approx(ciou)
        assert resample(samples, [f'ciou/{part}'])[f'ciou/{part}'].value == pytest.approx(ciou)
    assert write_results(tmp_path / 'out.json', results).is_file()
    old = {each['text'] for each in samples if each['names'] == 'old'}
    assert not any(word in text.split() for text in old for word in ('bar', 'brown', 'zigzags', 'gridded'))
