import importlib.util
import json

import pytest
import torch

from dual_loop.datasets import RefCOCODataset
from dual_loop.evaluation import captions
from dual_loop.evaluation.caption_scores import JavaError, score_captions
from dual_loop.evaluation.captions import ReferredObjects, add_scores, evaluate_captions, length_metrics
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.predictor import Predictor
from dual_loop.evaluation.processes import Processes
from dual_loop.evaluation.results import read_results, write_results


@pytest.fixture
def refcocog_root(refcoco_root):
    """Two objects of image 7, the first with two sentences, in the split 'train'; one of image 8 in 'val'."""
    (refcoco_root / 'refcoco').rename(refcoco_root / 'refcocog')
    (refcoco_root / 'refcocog' / 'refs(unc).p').rename(refcoco_root / 'refcocog' / 'refs(umd).p')
    return refcoco_root


@pytest.fixture
def dataset(refcocog_root):
    return RefCOCODataset(refcocog_root, 'refcocog', 'train', 'umd', exclude_image_ids=())


@pytest.fixture(scope='module')
def loaded(build_base):
    base = build_base().eval()
    return Loaded(base.network, base.vocabulary, dict(name='random', fingerprint='0', dtype='fp32'))


@pytest.fixture
def without_java(tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    monkeypatch.setenv('PATH', str(tmp_path / 'empty'))


def test_an_object_is_one_row_with_all_its_sentences(dataset):
    objects = ReferredObjects(dataset)
    assert len(objects.index) == 2
    assert [objects.words(row)['caption'] for row in (0, 1)] == [['left box', 'tall box'], ['right box']]
    assert [objects.sample_id(row) for row in (0, 1)] == ['COCO_7_0', 'COCO_7_1']
    assert objects.read_mask(0, 48, 64)[6:36, 4:24].all() and objects.read_mask(1, 48, 64)[10:30, 30:54].all()


def test_sentences_of_an_object_need_not_stand_together(dataset, monkeypatch):
    table = dataset.index
    monkeypatch.setattr(dataset, 'index', type(table).of(**{
        name: [table[name][row] for row in (0, 2, 1)] for name in ('image', 'ref', 'outline', 'sentence', 'caption')}))
    objects = ReferredObjects(dataset)
    assert [objects.words(row)['caption'] for row in (0, 1)] == [['left box', 'tall box'], ['right box']]


def test_each_object_is_described_in_its_own_mask(dataset, loaded, without_java):
    results = evaluate_captions(loaded, dataset, 'What is region1?', 2, 8, num_workers=0)
    predictor = Predictor(loaded.network, loaded.vocabulary)
    picture, said = predictor.prepare(dataset.read_image(0)), []
    for row in (0, 2):
        mask = torch.from_numpy(dataset.read_mask(row, 48, 64))
        (answer, ), = predictor.caption_regions([picture], [[mask]], 8, 'What is region1?')
        said.append(answer.text)
    assert [sample['text'] for sample in results['samples']] == said and said[0] != said[1]
    assert [sample['references'] for sample in results['samples']] == [['left box', 'tall box'], ['right box']]
    assert results['counts'] == dict(images=1, sentences=2, left_out=0)
    assert results['prompt'] == 'What is region1?' and results['tokenizer'] == 'plain'


def test_results_can_be_written_and_read(dataset, loaded, without_java, tmp_path):
    results = evaluate_captions(loaded, dataset, max_new_tokens=8, num_workers=0)
    read = read_results(write_results(tmp_path / 'captions.json', results))
    assert read == results | dict(schema=1)
    scores = score_captions([each['text'] for each in read['samples']], [['left box', 'tall box'], ['right box']],
                            'plain')
    assert {name: read['metrics'][name] for name in scores.metrics} == scores.metrics
    assert [{name: each[name] for name in ('cider', 'bleu4')} for each in read['samples']] == scores.samples


def test_two_processes_give_what_one_gives(dataset, loaded, without_java, monkeypatch):
    one = evaluate_captions(loaded, dataset, batch_size=1, max_new_tokens=8, num_workers=0)
    checks = []
    monkeypatch.setattr(captions, 'check_scores', lambda: checks.append(1))
    monkeypatch.setattr(captions, 'score_captions', lambda *args: score_captions(*args[:2], 'plain'))
    first, second = Processes(), Processes()
    second._store, second.rank, first.size, second.size = first._store, 1, 2, 2
    options = dict(batch_size=1, max_new_tokens=8, num_workers=0)
    assert evaluate_captions(loaded, dataset, processes=second, **options) is None
    assert not checks, 'only the first process scores, so only it needs the means'
    two = evaluate_captions(loaded, dataset, processes=first, **options)
    assert checks and two.pop('timing')['processes'] == 2 and one.pop('timing')['processes'] == 1
    assert json.dumps(one) == json.dumps(two)


def test_without_java_a_notice_comes_before_the_first_caption(dataset, loaded, without_java, monkeypatch):
    events = []
    monkeypatch.setattr(captions, '_warn', events.append)
    monkeypatch.setattr(Predictor, 'caption_regions', lambda *args: pytest.fail(f'described after {events}'))
    with pytest.raises(pytest.fail.Exception, match='no java on PATH.*METEOR is left out.*install a Java runtime'):
        evaluate_captions(loaded, dataset, num_workers=0)


def test_java_that_fails_at_the_end_costs_meteor_only(monkeypatch):
    said = []

    def score(texts, references, tokenizer):
        if tokenizer == 'ptb':
            raise JavaError('killed')
        return score_captions(texts, references, tokenizer)

    monkeypatch.setattr(captions, 'score_captions', score)
    monkeypatch.setattr(captions, '_warn', said.append)
    samples = [dict(text='a dog', references=['the dog']), dict(text='cat', references=['cat'])]
    metrics, tokenizer = add_scores(samples, 'ptb')
    assert tokenizer == 'plain' and 'meteor' not in metrics and metrics['cider'] > 0
    assert all(sample.keys() == {'text', 'references', 'cider', 'bleu4'} for sample in samples)
    assert 'killed' in said[0]


def test_lengths_are_those_of_the_texts():
    samples = [dict(text='', references=['a b', 'c'], ended=True), dict(text='a b c', references=['d'], ended=False),
               dict(text='a', references=['a'], ended=True), dict(text='b b', references=['b'], ended=True)]
    assert length_metrics(samples) == dict(words=1.5, reference_words=6 / 5, empty=0.25, hit_max_new_tokens=0.25)


def test_the_command_evaluates_the_tiny_model(checkout, refcocog_root, without_java, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('eval_captions', checkout / 'tools' / 'eval_captions.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / 'captions.json'
    arguments = [str(checkout / 'assets' / 'tiny'), '--data-root', str(refcocog_root), '--out', str(out),
                 '--max_new_tokens', '16', '--num-workers', '0', '--question', 'Say region1.']
    assert tool.main(arguments) == 0
    results, shown = read_results(out), capsys.readouterr().out
    assert results['dataset']['name'] == 'refcocog' and results['dataset']['split_by'] == 'umd'
    assert results['prompt'] == 'Say region1.' and results['max_new_tokens'] == 16
    assert [each['references'] for each in results['samples']] == [['left one']]
    assert 'CIDEr' in shown and 'tokenizer of the scores: plain' in shown and str(out) in shown


def test_captions_of_demo_data_are_compared_with_the_scene(demo_root):
    objects = ReferredObjects(RefCOCODataset(demo_root, split='val'))
    listed = json.loads((demo_root / 'refcoco' / 'instances.json').read_text())
    drawn = {(each['image_id'], each['id']): each['attributes'] for each in listed['annotations']}
    samples = []
    for row in range(len(objects.index)):
        sentence = objects._rows[row][0]
        key = (int(objects._sentences.index[name][sentence]) for name in ('image', 'object'))
        said = drawn[tuple(key)]
        text = f'A {said["size"]} {said["texture"]} {said["colour"]} {said["shape"]} left of a ring.'
        samples.append(dict(sample_id=objects.sample_id(row), text=text))
    assert len(samples) > 10
    samples[0]['text'] = samples[0]['text'].replace('left of', 'blorp').replace('A small', 'A large small')
    samples[1]['text'] = 'A thing.'
    figures, count = captions.add_accuracy(samples, objects), len(samples)
    size_lost = 1 + (' small ' in samples[0]['text'])
    assert figures == pytest.approx(dict(
        accuracy_shape=1 - 1 / count, accuracy_colour=1 - 1 / count, accuracy_texture=1 - 1 / count,
        accuracy_size=1 - size_lost / count, accuracy_all_four=1 - size_lost / count,
        unknown_words=1 / sum(len(sample['text'].split()) for sample in samples)))
    assert [samples[2][f'accuracy_{name}'] for name in ('shape', 'all_four')] == [True, True]
    assert not samples[1]['accuracy_shape']


def test_other_data_has_no_accuracy(dataset, loaded, without_java):
    results = evaluate_captions(loaded, dataset, max_new_tokens=8, num_workers=0)
    assert not any(name.startswith('accuracy') for each in (results['metrics'], *results['samples']) for name in each)
