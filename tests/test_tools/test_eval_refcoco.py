"""The command and its launcher on 34 sentences of 6 synthetic scenes."""

import errno
import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dual_loop.datasets import RefCOCODataset
from llava_sam2.portable.static_decoding import StaticDecoder


@pytest.fixture(scope='module')
def main(checkout):
    spec = importlib.util.spec_from_file_location('eval_refcoco', checkout / 'tools/eval_refcoco.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments) -> int:
        return module.main(list(map(str, arguments)))

    return call


@pytest.fixture
def copied_root(demo_root, tmp_path):
    return shutil.copytree(demo_root, tmp_path / 'ref_seg')


@pytest.fixture
def tiny(checkout):
    return checkout / 'assets/tiny'


def launch(checkout, *arguments) -> subprocess.Popen:
    return subprocess.Popen([str(checkout / 'tools/dist_eval.sh'), *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | dict(OMP_NUM_THREADS='1'))


def without_timing(path) -> dict:
    results = json.loads(path.read_text())
    assert results.pop('timing')['seconds'] > 0
    return results


def test_two_processes_write_what_one_writes(main, checkout, tiny, demo_root, tmp_path, capsys):
    options = '--data-root', demo_root, '--batch-size', 3, '--max_samples', 3, '--max_new_tokens', 10
    process = launch(checkout, 'refcoco', tiny, 2, *options, '--out', tmp_path / 'two.json')
    assert main('refcoco', tiny, *options, '--out', tmp_path / 'one.json', '--num-workers', 0) == 0
    shown = capsys.readouterr().out
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert without_timing(tmp_path / 'two.json') == without_timing(tmp_path / 'one.json')
    metrics = without_timing(tmp_path / 'one.json')['metrics']
    for text in (shown, out):
        assert 'protocol generate' in text and 'only a part of the split' in text and 'val (split by unc)' in text
        assert f'cIoU (sum of intersections / sum of unions)             {metrics["ciou"]:.4f}' in text
    assert f'wrote {tmp_path}/two.json' in out and f'wrote {tmp_path}/one.json' in shown


def test_static_decoding_can_be_switched_off(main, tiny, demo_root, tmp_path, monkeypatch):
    """And changes nothing: the last batch is a smaller one."""
    said = []
    own = StaticDecoder.decode
    monkeypatch.setattr(StaticDecoder, 'decode', lambda *given, **options: said.append(1) or own(*given, **options))
    batches = []
    for way, options in dict(static=[], plain=['--plain-decoding']).items():
        assert main('refcoco', tiny, '--data-root', demo_root, '--batch-size', 6, '--max_samples', 2, '--examples', 0,
                    '--max_new_tokens', 10, '--num-workers', 0, '--out', tmp_path / f'{way}.json', *options) == 0
        batches.append(len(said))
    assert batches[0] == batches[1] > 1
    static, plain = (without_timing(tmp_path / f'{way}.json') for way in ('static', 'plain'))
    assert static == plain


def test_the_default_file_tells_what_it_holds_and_is_replaced_aloud(main, tiny, demo_root, tmp_path, monkeypatch,
                                                                    capsys):
    monkeypatch.chdir(tmp_path)
    options = '--data-root', demo_root, '--protocol', 'forced', '--num-workers', 0, '--max_samples', 1
    for verb in ('wrote', 'replaced'):
        assert main('refcoco', tiny, *options) == 0
        assert f'{verb} work_dirs/eval/tiny_refcoco_val_forced_1images.json' in capsys.readouterr().out


@pytest.mark.parametrize(('arguments', 'message'), [
    (('refcoco', '{tiny}', '--split', 'test'), "use 'testA' (people) or 'testB'"),
    (('refcocog', '{tiny}'), "refcocog does not exist: give the folder of refcoco, refcoco+ and refcocog"),
    (('refcoco', '{tiny}', '--split_by', 'google'), "refs(google).p does not exist"),
    (('refcoco', 'no/such/model'), 'no/such/model does not exist: give the folder of a model'),
])
def test_a_mistake_is_one_line(main, tiny, demo_root, capsys, arguments, message):
    arguments = [argument.format(tiny=tiny) for argument in arguments]
    assert main(*arguments, '--data-root', demo_root) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('eval_refcoco: ') and message in error and 'optional=True' not in error


def test_the_model_is_missed_before_the_data(main, capsys):
    """Which may take long to come by, or are asked for in vain."""
    assert main('refcoco', 'no/such/model', '--data-root', 'no/such/data') == 1
    assert capsys.readouterr().err.startswith('eval_refcoco: no/such/model does not exist: give the folder of a model')


def test_the_tiny_model_and_the_demo_data_are_the_defaults(main, demo_root, tmp_path, capsys, monkeypatch):
    settings = dict(type=RefCOCODataset, data_root=str(demo_root))
    monkeypatch.setattr('dual_loop.evaluation.command_line.demo_settings', lambda dataset: settings)
    assert main('refcoco', '--max_samples', 1, '--protocol', 'forced', '--num-workers', 0, '--examples', 1,
                '--out', tmp_path / 'out.json') == 0
    out = capsys.readouterr().out
    assert out.startswith('NO MODEL GIVEN: this evaluates assets/tiny on the synthetic scenes') and 'model tiny' in out
    page = (tmp_path / 'out.html').read_text()
    assert page.count('data:image/') == 3 * 3 and f'pictures: {tmp_path}/out.html' in out


@pytest.mark.parametrize('name', ['file/out.json', 'out.html', 'folder.json'])
def test_a_file_that_cannot_be_written_is_met_before_the_evaluation(main, tiny, demo_root, tmp_path, capsys, name):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.json').mkdir()
    assert main('refcoco', tiny, '--data-root', demo_root, '--out', tmp_path / name) == 1
    shown = capsys.readouterr()
    assert f'--out {tmp_path / name}' in shown.err and 'sentence' not in shown.err


@pytest.mark.parametrize('option', [('--max_samples', 0), ('--batch-size', -1), ('--examples', -1),
                                    ('--max_samples', 'x')])
def test_numbers_of_nothing_are_refused(main, tiny, capsys, option):
    with pytest.raises(SystemExit):
        main('refcoco', tiny, *option)
    assert 'is not a whole number from' in capsys.readouterr().err


def test_a_mistake_is_one_line_of_several_processes_too(checkout, tiny, demo_root):
    process = launch(checkout, 'refcoco', tiny, 2, '--data-root', demo_root, '--split', 'test')
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and len(err.splitlines()) == 1 and "use 'testA'" in err


def test_results_of_a_type_that_was_asked_for_replace_no_others(main, tiny, demo_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for dtype in ('fp32', 'bf16'):
        assert main('refcoco', tiny, '--data-root', demo_root, '--protocol', 'forced', '--num-workers', 0,
                    '--max_samples', 1, '--dtype', dtype, '--examples', 0) == 0
    assert sorted(path.name for path in (tmp_path / 'work_dirs/eval').iterdir()) == [
        f'tiny_refcoco_val_forced_1images_{dtype}.json' for dtype in ('bf16', 'fp32')]


def test_an_empty_split_is_named(main, tiny, copied_root, capsys):
    file = copied_root / 'refcoco/refs(unc).p'
    refs = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps([dict(ref, sentences=[]) if ref['split'] == 'val' else ref for ref in refs]))
    assert main('refcoco', tiny, '--data-root', copied_root) == 1
    assert "refcoco, split 'val': RefCOCODataset found no samples" in capsys.readouterr().err


def test_a_missing_image_ends_the_evaluation(main, tiny, copied_root, tmp_path, capsys):
    image = RefCOCODataset(copied_root, split='val').path(5)
    image.unlink()
    assert main('refcoco', tiny, '--data-root', copied_root, '--out', tmp_path / 'out.json') == 1
    error = capsys.readouterr().err
    assert f'{image} does not exist: put or link the COCO 2014 training images there' in error
    assert not (tmp_path / 'out.json').exists()


@pytest.mark.parametrize(('number', 'gpus', 'status'), [(signal.SIGINT, 1, 130), (signal.SIGTERM, 2, 143)])
def test_an_interrupted_evaluation_says_how_far_it_came(checkout, tiny, copied_root, tmp_path, number, gpus, status):
    """The last image is a pipe: whoever opens it waits, and shows that the others are done or under way."""
    dataset = RefCOCODataset(copied_root, split='val')
    image = dataset.path(int(dataset.index['image'].argmax()))
    image.unlink()
    os.mkfifo(image)
    process = launch(checkout, 'refcoco', tiny, gpus, '--data-root', copied_root, '--batch-size', 3, '--protocol',
                     'forced', '--num-workers', 0, '--out', tmp_path / 'out.json')
    pipe = wait_for_reader(image, process)
    wait_until_all_listen(process, gpus)
    process.send_signal(number)
    out, err = process.communicate(timeout=40)
    os.close(pipe)
    assert process.returncode == status, err
    (line, ) = (line for line in err.splitlines() if 'eval_refcoco: ' in line)
    assert 'interrupted after ' in line and line.endswith(' sentences; nothing was written')
    if gpus == 1:
        assert 'after 27 sentences' in line
    assert not (tmp_path / 'out.json').exists()


@pytest.mark.parametrize(('options', 'status', 'says'), [
    ((), 143, 'sentences; nothing was written'),
    (('--loader-timeout', 1), 1, 'no batch came from the loader of the evaluation (--num-workers) within 1 s'),
])
def test_an_evaluation_that_waits_for_an_image(checkout, tiny, copied_root, tmp_path, options, status, says):
    dataset = RefCOCODataset(copied_root, split='val')
    image = dataset.path(int(dataset.index['image'].argmax()))
    image.unlink()
    os.mkfifo(image)
    process = launch(checkout, 'refcoco', tiny, 1, '--data-root', copied_root, '--batch-size', 4, '--protocol',
                     'forced', '--num-workers', 1, '--out', tmp_path / 'out.json', *options)
    pipe = wait_for_reader(image, process)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    if status == 143:
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=40)
    os.close(pipe)
    assert process.returncode == status, err
    assert [line for line in err.splitlines() if 'eval_refcoco: ' in line][0].count(says) == 1, err
    assert 'Traceback' not in err and not psutil.wait_procs(started, timeout=5)[1]


def test_any_other_error_ends_it_with_a_traceback(checkout, tiny, demo_root):
    """In a process of its own: workers of the loader that nobody ends would keep it from exiting."""
    script = ("import runpy, sys\nfrom dual_loop.evaluation.predictor import Predictor\nPredictor.segment = None\n"
              "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')")
    done = subprocess.run(
        [sys.executable, '-c', script, str(checkout / 'tools/eval_refcoco.py'), 'refcoco', str(tiny), '--data-root',
         str(demo_root)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "TypeError: 'NoneType' object is not callable" in done.stderr


def wait_for_reader(pipe, process) -> int:
    for _ in range(600):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO and process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise TimeoutError('nobody reads the image')


def wait_until_all_listen(process, count: int) -> None:
    """Until each of the processes would hear SIGTERM: one that is still importing is simply ended by it."""
    for _ in range(600):
        ranks = [each for each in psutil.Process(process.pid).children(recursive=True) if 'RANK' in each.environ()]
        if count == 1 or len(ranks) == count and all(listens(each.pid) for each in ranks):
            return
        time.sleep(0.1)
    raise TimeoutError('a process does not listen')


def listens(pid: int) -> bool:
    (caught, ) = (line.split()[1] for line in Path(f'/proc/{pid}/status').read_text().splitlines()
                  if line.startswith('SigCgt'))
    return bool(int(caught, 16) >> signal.SIGTERM - 1 & 1)
