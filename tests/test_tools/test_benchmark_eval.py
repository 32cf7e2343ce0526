"""The benchmark of an evaluation on the tiny model: both ways do the same work, and it measures what it says."""

import importlib.util
import json

import pytest

from llava_sam2.portable.generation import Transcript


@pytest.fixture(scope='module')
def main(checkout):
    spec = importlib.util.spec_from_file_location('benchmark_eval', checkout / 'tools/benchmark_eval.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main(list(map(str, arguments)))


def test_both_ways_at_two_sizes(main, tmp_path, capsys, monkeypatch):
    said, add = [], Transcript.add
    monkeypatch.setattr(Transcript, 'add', lambda self, tokens: said.append(len(tokens)) or add(self, tokens))
    out = tmp_path / 'out' / 'eval.json'
    assert main('configs/dual_loop_tiny.py', '--batch-size', 2, 7, '--answer-len', 4, '--runs', 2, '--warm-up', 1,
                '--num-workers', 0, '--plain', '--json', out) == 0
    assert sorted(said) == [2] * 40 + [7] * 40  # each of five batches takes four tokens, in two ways
    report = json.loads(out.read_text())
    assert report['batch_sizes'].keys() == {'2', '7'} and 'sentences a second' in capsys.readouterr().out
    both = {'InternViT', "SAM 2's encoder", 'mask decoder', 'masks in their size, to the host', 'texts and rows',
            'scores'}
    for size, ways in report['batch_sizes'].items():
        assert ways['static']['phases'].keys() == both | {'prefill', 'decoding'}
        assert ways['plain']['phases'].keys() == both | {'decoding, prefill included', 'pass for [SEG]'}
        for found in ways.values():
            assert all(value > 0 for value in found['phases'].values()) and found['warm_up'] > 0
            assert 0 < found['sentences_per_second'] < int(size) / found['seconds'] * 2
        assert ways['static']['pictures'] == ways['plain']['pictures'] < int(size)


def test_a_config_that_cannot_be_built_is_one_line(main, tmp_path, capsys):
    assert main('configs/dual_loop_4b.py', '--json', tmp_path / 'out.json') == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('benchmark_eval: ') and not (tmp_path / 'out.json').exists()
