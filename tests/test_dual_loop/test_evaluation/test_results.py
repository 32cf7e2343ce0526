import json
import re

import pytest

from dual_loop.evaluation.results import ResultsError, assemble_results, read_results, versions, write_results


@pytest.fixture
def results():
    samples = [dict(image=image, sample_id=f'{image}_{number}', text='a "red" cirčle', intersection=number, union=9,
                    seg=True, answer='Sure, it is [SEG].') for image in (10, 9) for number in (2, 1)]
    return dict(task='referring', protocol='generate', samples=samples, counts=dict(images=2, sentences=4),
                dataset=dict(name='refcoco', split='val', split_by='unc', data_root_name='data', digest='d' * 64),
                model=dict(name='tiny', fingerprint='f' * 64), prompt='Please segment {} in this image.', dtype='fp32',
                batch_size=2, max_new_tokens=16, metrics=dict(ciou=6 / 36, giou=6 / 36), versions=versions(),
                timing=dict(seconds=1.5, sentences_per_second=2.0, processes=1, device='cpu'))


def test_results_are_assembled_with_what_follows_from_the_parts(results):
    others = {key: results[key] for key in ('protocol', 'dataset', 'prompt', 'batch_size', 'max_new_tokens', 'timing')}
    model = results['model'] | dict(dtype='bf16')
    found = assemble_results('cycle', model, results['samples'], results['metrics'],
                             dict(images=2, objects=3, left_out=1), ['numpy'], **others)
    assert found == results | dict(
        task='cycle', model=model, dtype='bf16', counts=dict(images=2, sentences=4, objects=3, left_out=1),
        versions=versions() | dict(numpy=found['versions']['numpy']))
    assert list(found['counts']) == ['images', 'sentences', 'objects', 'left_out']  # as the file lists them


def test_what_is_read_is_what_was_written_with_the_samples_in_order(tmp_path, results):
    path = write_results(tmp_path / 'made' / 'results.json', results)
    read = read_results(path)
    assert [sample['sample_id'] for sample in read['samples']] == ['9_1', '9_2', '10_1', '10_2']
    results['samples'] = results['samples'][::-1]
    assert read == dict(schema=1, **results)
    assert [file.name for file in path.parent.iterdir()] == ['results.json']


def test_the_file_depends_on_no_order_and_has_one_line_for_each_sample(tmp_path, results):
    one = write_results(tmp_path / 'one.json', results)
    other = write_results(tmp_path / 'other.json', {**dict(reversed(results.items())),
                                                    'samples': results['samples'][::-1]})
    assert one.read_bytes() == other.read_bytes()
    lines = one.read_text(encoding='utf-8').splitlines()
    assert sum('"sample_id"' in line for line in lines) == 4
    assert len(lines) == 4 + len(results) + 1 + 3  # samples, keys with the schema's, closing brackets and opening one
    assert 'cirčle' in one.read_text(encoding='utf-8')


def test_captions_say_which_tokenizer_their_scores_are_for(tmp_path, results):
    read = read_results(write_results(tmp_path / 'results.json', results | dict(tokenizer='plain')))
    assert read['tokenizer'] == 'plain'


def test_results_without_samples_can_be_written(tmp_path, results):
    assert read_results(write_results(tmp_path / 'results.json', results | dict(samples=[])))['samples'] == []


@pytest.mark.parametrize('change, message', [
    (dict(extra=1), 'missing or unknown keys: extra'),
    (dict(metrics=dict(ciou=float('nan'))), "finite numbers, got nan for 'ciou'"),
    (dict(metrics=dict(giou=dict(same=1.0))), "finite numbers, got {'same': 1.0} for 'giou'"),
    (dict(samples=[dict(image=1, sample_id='a')] * 2), re.escape("two samples are (1, 'a'")),
])
def test_results_that_break_the_schema_leave_the_old_file_alone(tmp_path, results, change, message):
    path = write_results(tmp_path / 'results.json', results)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=message):
        write_results(path, results | change)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_same_mask_asked_in_two_conditions_is_two_samples(tmp_path, results):
    samples = [dict(image=1, sample_id='a', condition=condition, frame=frame)
               for condition in ('b', 'a') for frame in ('same', 'paired')]
    read = read_results(write_results(tmp_path / 'results.json', results | dict(samples=samples)))['samples']
    assert [(each['condition'], each['frame']) for each in read] == [
        ('a', 'paired'), ('a', 'same'), ('b', 'paired'), ('b', 'same')]


@pytest.mark.parametrize('text, message', [
    ('{"schema": 1', 'is no JSON'),
    (b'\xff\xfe', 'is no JSON'),
    ('[1]', 'holds no results'),
    ('{"metrics": {}}', 'holds no results'),
    ('{"schema": 2}', 'has version 2 of the schema, this code reads 1'),
    ('{"schema": 1, "task": "cycle"}', 'it lacks protocol, dataset'),
])
def test_other_files_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / 'file.json'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ResultsError, match=f'file.json {message}|file.json.*{message}'):
        read_results(path)
    with pytest.raises(ResultsError, match='is a folder: give a JSON file that `dual-loop eval` wrote'):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match='none.json does not exist: give a JSON file that'):
        read_results(tmp_path / 'none.json')


def test_the_metrics_go_into_the_model_card(tmp_path, results):
    from dual_loop.checkpoints.model_card import model_card

    metrics = json.loads(write_results(tmp_path / 'results.json', results).read_text(encoding='utf-8'))['metrics']
    card = model_card({}, 'base', 'f', 'full', 'iter_1.pth', 1, False, metrics)
    assert f'| ciou | {6 / 36} |' in card


def test_versions_name_the_libraries_and_no_machine():
    assert list(versions()) == ['dual-loop', 'python', 'torch', 'transformers', 'peft']
    assert all(re.fullmatch(r'\d+\.\d+[\w.+]*', number) for number in versions().values())
