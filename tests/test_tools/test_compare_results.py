"""The command line of tools/compare_results.py on small results."""

import copy
import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from dual_loop.evaluation.bootstrap import resample
from dual_loop.evaluation.results import write_results


def make_results(gain: int = 0, name: str | None = None) -> dict:
    """24 sentences of 8 images, each with a better intersection by ``gain`` pixels."""
    random = np.random.default_rng(0)
    samples = [dict(image=number // 3, sample_id=f'{number // 3}_{number % 3}', text='left', union=1000,
                    intersection=int(pixels) + gain, seg=True, answer='')
               for number, pixels in enumerate(random.integers(900, size=24))]
    ciou = sum(sample['intersection'] for sample in samples) / 24000
    return dict(task='referring', protocol='generate', samples=samples, counts=dict(images=8, sentences=24),
                dataset=dict(name='refcoco', split='val', split_by='unc', data_root_name='data', digest='d' * 64),
                model=dict(name=name, fingerprint='f' * 64), prompt='Please segment {} in this image.', dtype='fp32',
                batch_size=2, max_new_tokens=16, versions={}, timing={},
                metrics={'ciou': ciou, 'giou': ciou, 'precision@0.5': 0.5, 'no_seg_rate': 0.0})


@pytest.fixture
def compare(checkout, tmp_path, monkeypatch, capsys):
    """The tool on results in this process: exit status, what it says, and its errors."""
    spec = importlib.util.spec_from_file_location('compare_results', checkout / 'tools/compare_results.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)

    def compare(files: dict[str, dict], *arguments: str):
        for name, results in files.items():
            write_results(name, results)
        status = tool.main([*files, *arguments])
        return status, *capsys.readouterr()
    return compare


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line.startswith('|')]


def test_one_table_has_the_base_first_and_a_row_for_each_file(compare, tmp_path):
    files = {'base.json': make_results(), 'better.json': make_results(50, 'tiny_iter_3_lora'),
             'again.json': make_results(name='tiny_iter_3_proj')}
    status, out, err = compare(files, '--metrics', 'ciou', 'precision@0.5', '--out', 'table.md')
    head, _, base, better, again = rows(out)
    assert status == 0 and head == ['model', 'ciou', 'Δ ciou', 'precision@0.5', 'Δ precision@0.5']
    assert [row[0] for row in (base, better, again)] == ['base', 'tiny_iter_3_lora', 'tiny_iter_3_proj']
    expected = resample(files['base.json']['samples'], ['ciou'])['ciou'].estimate
    assert base[1] == f'{expected.value:.4f} [{expected.low:.4f}, {expected.high:.4f}]'
    assert base[2] == '' and better[2] == '**+0.0500 [+0.0500, +0.0500]**' and again[2] == '+0.0000 [+0.0000, +0.0000]'
    assert 'referring, generate, refcoco val (unc): 24 sentences of 8 images' in out
    assert (tmp_path / 'table.md').read_text(encoding='utf-8') == out


def test_by_default_all_metrics_but_the_precisions_are_shown(compare):
    files = {name: make_results() for name in ('one.json', 'two.json')}
    for results in files.values():
        results['metrics']['seconds'] = 3.0  # the samples say nothing about it
    _, out, _ = compare(files)
    assert rows(out)[0][1::2] == ['ciou', 'giou', 'no_seg_rate']


def test_models_of_one_name_are_named_by_their_files(compare):
    _, out, _ = compare({name: make_results(name='exported') for name in ('one.json', 'two.json')})
    assert [row[0] for row in rows(out)[2:]] == ['one', 'two']


@pytest.mark.parametrize('change, message', [
    (dict(task='cycle'), "task is 'cycle', not 'referring'"),
    (dict(protocol='forced'), "protocol is 'forced', not 'generate'"),
    (dict(prompt='Where is {}?'), "prompt is 'Where is {}?', not 'Please segment {} in this image.'"),
    (dict(tokenizer='plain'), "tokenizer is 'plain', not None"),
    (dict(dataset=dict(split='testA')), "data set: split is 'testA', not 'val'"),
    (dict(dataset=dict(split_by='google')), "data set: split_by is 'google', not 'unc'"),
    (dict(dataset=dict(name='refcoco+')), "data set: name is 'refcoco+', not 'refcoco'"),
    (dict(dataset=dict(digest='e')), f"data set: digest is 'e', not '{'d' * 64}'"),
    (dict(samples=make_results()['samples'][1:]), 'it lacks 1 of its samples and has 0 others'),
    (dict(samples=[*make_results()['samples'], dict(image=9, sample_id='9_0')]), 'it lacks 0 of its samples and has 1'),
])
def test_answers_to_different_questions_are_refused(compare, tmp_path, change, message):
    other = make_results()
    for key, value in copy.deepcopy(change).items():
        other[key] = other[key] | value if isinstance(value, dict) else value
    status, out, err = compare({'base.json': make_results(), 'good.json': make_results(), 'other.json': other},
                               '--out', 'table.md')
    assert status == 1 and out == '' and not (tmp_path / 'table.md').exists()
    assert f'other.json cannot be compared with base.json: {message}' in err


def test_the_folder_of_the_data_and_the_speed_may_differ(compare):
    other = make_results()
    other['dataset']['data_root_name'], other['timing'] = 'elsewhere', dict(seconds=9)
    status, _, err = compare({'base.json': make_results(), 'other.json': other})
    assert status == 0 and err == ''


def test_settings_that_may_explain_a_difference_are_noted(compare):
    status, out, err = compare({'base.json': make_results(), 'other.json': make_results() | dict(
        dtype='bf16', batch_size=4, max_new_tokens=8)})
    assert status == 0 and rows(out)
    assert 'other.json: dtype is bf16, in base.json fp32' in err
    assert 'other.json: batch_size is 4, in base.json 2' in err
    assert 'other.json: max_new_tokens is 8, in base.json 16' in err


def test_a_figure_that_is_no_mean_over_sentences_is_noted(compare):
    other = make_results()
    other['metrics']['ciou'] = 0.25
    _, _, err = compare({'base.json': make_results(), 'other.json': other}, '--metrics', 'ciou')
    assert re.search(r'other.json: ciou is 0.2500 over everything at once and 0\.\d+ as a mean', err)
    assert 'base.json: ciou' not in err


def test_a_metric_that_the_samples_do_not_have_is_an_error(compare):
    status, out, err = compare({name: make_results() for name in ('one.json', 'two.json')}, '--metrics', 'meteor')
    assert status == 1 and out == '' and "'meteor'" in err


def test_from_a_shell_a_missing_file_is_one_line_and_a_status(checkout, tmp_path):
    write_results(tmp_path / 'base.json', make_results())
    done = subprocess.run([sys.executable, checkout / 'tools/compare_results.py', 'base.json', 'nowhere.json'],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and 'nowhere.json' in done.stderr
