"""Every public class and function has its name in mmengine's registries after one import."""

import json
import subprocess
import sys

import pytest
from mmengine.config import Config
from mmengine.registry import FUNCTIONS

REGISTERED = {
    'DATASETS': ['DescribeAnythingDataset', 'FolderDataset', 'OpenImagesDataset', 'RefCOCODataset', 'SA1BDataset',
                 'SAVPairDataset'],
    'DATA_SAMPLERS': ['GlobalBatchSampler', 'GroupedByLengthSampler', 'ResumableBatchSampler'],
    'FUNCTIONS': ['collate_samples', 'ensure_demo_data', 'held_out_image_ids', 'load_tokenizer', 'stand_in_tokenizer'],
    'HOOKS': ['AtomicCheckpointHook', 'CycleHook', 'HeldOutHook', 'LogHook', 'PictureHook', 'RankLogHook',
              'ReportHook', 'TeacherEMAHook'],
    'LOG_PROCESSORS': ['ProgressLine'],
    'LOOPS': ['DualLoopTrainLoop'],
    'METRICS': ['ReferringMetric'],
    'MODELS': ['BatchPreprocessor', 'CaptionBridge', 'CaptionLoop', 'DualLoopModel', 'FrozenTeacher', 'LiveTeacher',
               'MaskLoop', 'PointMaskLoss', 'SupervisedLoop', 'Teacher', 'VideoLLaVASAMModel', 'WordsLoop'],
}
# In an __all__, of a kind that registries hold, and not for configs.
ABSTRACT = ['GroundedDataset']

# Prints what is registered after `import dual_loop`, after the module, and after importing every module there is.
PROGRAM = """
import importlib, inspect, json, pkgutil, sys
sys.modules['xtuner'] = sys.modules['deepspeed'] = None  # importing them raises, as if they were not installed
import mmengine.registry
from mmengine.registry import Registry

def ours():
    found = {}
    for key, registry in vars(mmengine.registry).items():
        if isinstance(registry, Registry):
            names = [name for name, what in registry.module_dict.items()
                     if what.__module__.split('.')[0] in ('dual_loop', 'llava_sam2')]
            found |= {key: sorted(names)} if names else {}
    return found

import dual_loop
told = dict(package=ours(), loaded=sorted({name.split('.')[0] for name in sys.modules}))
import dual_loop.registered
told['registered'] = ours()

import llava_sam2
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import BaseLoop, LogProcessor
from torch.utils.data import Dataset, Sampler
kinds = BaseDataPreprocessor, BaseLoop, BaseMetric, BaseModel, Dataset, Hook, LogProcessor, Sampler
public = set()
for package in dual_loop, llava_sam2:
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
        if each.name.startswith('dual_loop.demo_page'):  # of no use to a config, and asks for gradio
            continue
        module = importlib.import_module(each.name)
        for name in getattr(module, '__all__', ()):
            what = getattr(module, name)
            if inspect.isclass(what) and issubclass(what, kinds):
                public.add(name)
told |= dict(everything=ours(), public=sorted(public))
print(json.dumps(told))
"""


@pytest.fixture(scope='module')
def told():
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('registry', REGISTERED)
def test_names_of_a_registry(told, registry):
    assert told['registered'][registry] == REGISTERED[registry]


def test_nothing_is_forgotten(told):
    assert told['everything'] == told['registered'] and told['registered'].keys() == REGISTERED.keys()
    assert set(told['public']) - set(sum(REGISTERED.values(), [])) == set(ABSTRACT)


def test_the_package_alone_registers_and_loads_nothing_more(told):
    assert told['package'] == {}
    assert not {'transformers', 'peft'} & set(told['loaded'])
    assert 'torchvision' not in told['loaded']


def test_every_hook_metric_and_sampler_is_in_an_all_of_its_package(told):
    """So that the walk above would see one that forgot its decorator."""
    assert set(REGISTERED['HOOKS'] + REGISTERED['METRICS'] + REGISTERED['DATASETS']) <= set(told['public'])


@pytest.mark.parametrize('name', ['sft_tiny', 'dual_loop_tiny', 'dual_loop_4b', 'rehearsal_4b'])
def test_shipped_configs_import_it(checkout, name):
    pytest.importorskip('xtuner')
    config = Config.fromfile(checkout / f'configs/{name}.py')
    assert config.custom_imports.imports == ['dual_loop.registered']


def test_functions_are_found_by_their_names(refcoco_root, tmp_path, small, checkout):
    """Where a config names a function: collation, tokenizer, prepare and the pictures to leave out."""
    import dual_loop.registered  # noqa: F401
    from dual_loop.datasets import RefCOCODataset
    from dual_loop.demo import ensure_demo_data
    from llava_sam2.tokenizer import build_tokenizer, load_tokenizer

    folder = str(checkout / 'assets/tiny')
    named = build_tokenizer(dict(type='load_tokenizer', folder=folder))
    assert named.get_vocab() == load_tokenizer(folder).get_vocab()
    assert FUNCTIONS.get('ensure_demo_data') is ensure_demo_data

    def build(**functions):
        return RefCOCODataset(refcoco_root, **small, **functions)

    by_name = build(exclude_image_ids=dict(type='held_out_image_ids', data_root=str(refcoco_root)),
                    tokenizer=dict(type='load_tokenizer', folder=folder),
                    prepare=dict(type='ensure_demo_data', root=str(tmp_path / 'demo'), images=4, workers=1))
    assert (tmp_path / 'demo').is_dir() and by_name.index_digest == build().index_digest
    by_path = build(tokenizer=dict(type='llava_sam2.tokenizer.load_tokenizer', folder=folder))
    assert by_name.modality_length.tolist() == by_path.modality_length.tolist()


@pytest.mark.parametrize('imports, checked', [
    (['dual_loop'], True), (['dual_loop.registered'], True), ('dual_loop.registered', True),
    (['my_data', 'dual_loop.engine'], True), (['my_data', 'dual_loop_of_mine'], False), ([], False), (None, False)])
def test_whose_configs_are_checked(imports, checked):
    from dual_loop.engine.compat import _imports_this_package

    custom = {} if imports is None else dict(custom_imports=dict(imports=imports, allow_failed_imports=False))
    assert _imports_this_package(custom) == checked
    assert not _imports_this_package(dict(custom_imports=None))
