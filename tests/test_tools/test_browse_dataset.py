"""The command line of tools/browse_dataset.py on a small demo world."""

import importlib.util
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from dual_loop.visualization.browse import spread

CONFIG = """
__import__('dual_loop')
from mmengine.config import read_base
from xtuner.dataset import ConcatDataset
from dual_loop.datasets import DescribeAnythingDataset, RefCOCODataset, SAVPairDataset
from dual_loop.demo import ensure_demo_data

with read_base():
    from .dual_loop_tiny import *

common = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7,
              prepare=dict(type=ensure_demo_data, root='{root}', images=12, seed=0, workers=1))
refcoco = dict(type=RefCOCODataset, data_root='{root}/ref_seg', **common)
train_dataloader['dataset'] = dict(type=ConcatDataset, datasets=[
    dict(type=SAVPairDataset, data_root='{root}/sav', **common), dict(split='train', num_objects=2, **refcoco),
    dict(type=SAVPairDataset, data_root='{root}/nowhere', name='elsewhere')])
train_cfg['loop2_dataloader']['dataset'] = dict(
    type=DescribeAnythingDataset, data_root='{root}/dam', split='SAV', **common)
val_dataloader['dataset'] = dict(split='val', **refcoco)
"""


@pytest.fixture(scope='module')
def folder(checkout, tmp_path_factory):
    """A copy of the tiny config with a few demo images."""
    folder = tmp_path_factory.mktemp('browse')
    shutil.copytree(checkout / 'configs/_base_', folder / '_base_')
    shutil.copy(checkout / 'configs/dual_loop_tiny.py', folder)
    (folder / 'small.py').write_text(CONFIG.replace('{root}', str(folder / 'demo')))
    return folder


@pytest.fixture(scope='module')
def browsed(checkout, folder):
    """A run from another folder, without XTuner and DeepSpeed."""
    code = ("import runpy, sys; sys.modules['xtuner'] = sys.modules['deepspeed'] = None; "
            f"runpy.run_path({str(checkout / 'tools/browse_dataset.py')!r}, run_name='__main__')")
    done = subprocess.run([sys.executable, '-c', code, 'small.py', '--num-samples', '2'], cwd=folder,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / 'work_dirs/browse/small', done.stdout


@pytest.fixture
def run(checkout, browsed, folder, monkeypatch, capsys):
    """The tool in this process: exit status, what it says, and its errors."""
    spec = importlib.util.spec_from_file_location('browse_dataset', checkout / 'tools/browse_dataset.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(folder)

    def run(*arguments):
        status = tool.main([str(each) for each in arguments])
        return status, *capsys.readouterr()

    return run


def test_writes_a_picture_of_each_sample_and_a_page_with_all(browsed):
    folder, output = browsed
    pictures = {file.name for file in folder.glob('*.png')}
    assert pictures >= {'sav_0.png', 'sav_1.png', 'dam_sav_0.png', 'dam_sav_1.png',
                        'refcoco_held_out_0.png'}
    assert any(name.startswith('refcoco_0') for name in pictures)
    page = (folder / 'index.html').read_text()
    assert all(f'href="{name}"' in page for name in pictures) and str(folder / 'index.html') in output
    assert all(Image.open(folder / name).width >= 900 for name in pictures)
    assert page.index('>loop 1<') < page.index('>loop 2<') < page.index('>held out<')


def test_a_data_set_that_is_not_there_is_named_and_left_out(browsed):
    folder, output = browsed
    assert f'not there: loop 1: {folder.parents[2] / "demo/nowhere"} does not exist' in output
    assert 'demo/nowhere does not exist' in (folder / 'index.html').read_text()


def test_the_same_pictures_again_and_others_with_another_seed(browsed, run, tmp_path):
    for seed in (0, 5):
        status, _, errors = run('small.py', '--num-samples', 2, '--source', 'sav', '--seed', seed, '--output-dir',
                                tmp_path / str(seed))
        assert status == 0, errors
        assert {file.name for file in (tmp_path / str(seed)).iterdir()} == {'sav_0.png', 'sav_1.png', 'index.html'}
    first, again, other = ((each / 'sav_0.png').read_bytes() for each in (browsed[0], tmp_path / '0', tmp_path / '5'))
    assert first == again != other


def test_a_bad_sample_is_shown_as_its_substitute(run, folder, tmp_path):
    demo = shutil.copytree(folder / 'demo/sav', tmp_path / 'sav')
    broken = sorted(demo.rglob('*.npz'))[0]
    broken.write_bytes(b'cut off')
    status, output, errors = run('small.py', '--num-samples', 99, '--source', 'sav', '--output-dir', tmp_path / 'out',
                                 '--cfg-options', f'train_dataloader.dataset.datasets.0.data_root={demo}')
    assert status == 0, errors
    name = broken.relative_to(demo).with_suffix('').as_posix()
    for text in (output, (tmp_path / 'out/index.html').read_text()):
        assert f'in place of {name}, which cannot be read' in text
        assert f'bad sample {name}: cannot be read as an npz file' in text and str(broken) in text
    assert len(list((tmp_path / 'out').glob('*.png'))) == len(list(demo.rglob('*.npz')))


@pytest.mark.parametrize(('arguments', 'parts'), [
    (['small.py', '--source', 'sav', 'savv'], ['no source savv; the config has sav, refcoco, dam_sav\n', 'nowhere']),
    (['missing.py'], ['missing.py']),
    (['empty.py'], ['empty.py has no data sets', 'train_dataloader']),
    (['small.py', '--cfg-options', 'model.base.tokenizer=nowhere'], ['nowhere', 'model.tokenizer']),
    (['small.py', '--cfg-options', 'train_dataloader.dataset.datasets.0.type=SAVPairDatset'],
     ['loop 1, source 1: ', "type='SAVPairDatset' is no data set", 'did you mean SAVPairDataset?']),
    (['small.py', '--cfg-options', 'train_dataloader.dataset.datasets.0.dataroot=nowhere'],
     ['loop 1, source 1: ', "SAVPairDataset has no argument 'dataroot'; did you mean data_root?"]),
    (['small.py', '--source', 'sav', '--cfg-options', 'train_dataloader.dataset.datasets.0.image_size=224'],
     ['image_size=224', 'the model reads 112']),
    (['small.py', '--source', 'sav', '--num-samples', '1', '--output-dir', 'empty.py'],
     ['the pictures cannot be written to empty.py: File exists. Choose another --output-dir']),
])
def test_errors_are_one_clear_message(run, folder, arguments, parts):
    (folder / 'empty.py').write_text("model = dict(tokenizer='assets/tiny', pretrained='assets/tiny')\n")
    status, _, errors = run(*arguments)
    assert status == 1 and errors.count('browse_dataset: ') == 1
    assert all(part in errors for part in parts), errors


def test_spread_takes_one_position_of_each_part():
    assert spread(100, 4, 0.0) == [0, 25, 50, 75] and spread(100, 4, 0.999) == [24, 49, 74, 99]
    assert spread(3, 8, 0.5) == [0, 1, 2] and spread(0, 4, 0.5) == []
