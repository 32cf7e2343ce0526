"""The shims: what each one prevents, seen without it where that is cheap."""
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch.utils.flop_counter import FlopCounterMode

from dual_loop.engine import compat


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in an interpreter of its own, with dual_loop on its path."""
    path = os.pathsep.join([str(compat.DEEPSPEED_DIR.parents[2]), *environment.pop('extra_path', '').split(os.pathsep)])
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          env=os.environ | environment | {'PYTHONPATH': path})


def test_package_imports_without_xtuner_and_deepspeed():
    result = run_python('''
import sys
sys.modules['xtuner'] = sys.modules['deepspeed'] = None  # importing them raises, as if they were not installed
import dual_loop
from dual_loop.engine import compat
compat.apply()
heavy = {'transformers', 'peft', 'torchvision'} & set(sys.modules)
assert not heavy, heavy
try:
    compat.require_xtuner()
except ModuleNotFoundError as error:
    print(error)
''')
    assert result.returncode == 0, result.stderr
    assert 'Training needs xtuner' in result.stdout and 'requirements/lock.txt' in result.stdout


def test_broken_bitsandbytes_is_ignored(tmp_path):
    """PEFT wraps a layer although the installed bitsandbytes cannot be imported."""
    package = tmp_path / 'bitsandbytes'
    package.mkdir()
    (package / '__init__.py').write_text('import triton.ops_that_are_gone\n')
    result = run_python('''
import importlib.util, torch, peft
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
def wrapped_layer():
    return type(peft.inject_adapter_in_model(peft.LoraConfig(target_modules=['linear']), Net()).linear).__name__
try:
    wrapped_layer()
except ImportError as error:
    print('without:', error.name)
import dual_loop
print('with:', wrapped_layer(), importlib.util.find_spec('bitsandbytes'))
''', extra_path=str(tmp_path))
    assert result.stdout.splitlines() == ['without: triton.ops_that_are_gone', 'with: Linear None'], result.stderr
    assert 'bitsandbytes is installed but cannot be imported' in result.stderr


def test_checkpoint_with_history_loads_safely():
    history = HistoryBuffer([1.5, 2.5], [1, 1])
    history.update(4.0)
    history.statistics('mean', 2)
    state = dict(scalars={'loss': history}, config=ConfigDict(a=dict(b=1)), lr=np.float64(0.1), step=np.int64(3))
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    assert loaded['scalars']['loss'].statistics('mean', 2) == 3.25
    assert loaded['scalars']['loss'].data[0].tolist() == [1.5, 2.5, 4.0]
    assert loaded['config'].a.b == 1 and loaded['lr'] == 0.1 and loaded['step'] == 3


def test_unsafe_classes_stay_refused():
    stream = io.BytesIO()
    torch.save({'f': getattr}, stream)
    stream.seek(0)
    with pytest.raises(Exception, match='weights_only'):
        torch.load(stream, weights_only=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the shim is for hosts without a GPU')
def test_set_device_without_gpu():
    torch.cuda.set_device(0)


def test_set_device_still_reaches_torch(monkeypatch):
    devices = []
    monkeypatch.setattr(torch.cuda, 'set_device', devices.append)
    compat.accept_cpu_ranks()
    compat.accept_cpu_ranks()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    torch.cuda.set_device(1)
    assert devices == [1]


def test_short_deepspeed_names():
    names = pytest.importorskip('xtuner.configs').cfgs_name_path
    stages = {}
    for name in ('zero1', 'zero2', 'zero2_fp32', 'zero2_offload'):
        with open(names[name]) as file:
            config = json.load(file)
        stages[name] = config['zero_optimization']['stage']
        assert config['gradient_accumulation_steps'] == 'auto'
    assert stages == dict(zero1=1, zero2=2, zero2_fp32=2, zero2_offload=2)
    assert names['zero3'] == names['deepspeed_zero3']  # found, to be refused with the reason


@pytest.mark.skipif(torch.cuda.is_available(), reason='DeepSpeed has this operator on hosts without a GPU only')
def test_deepspeed_compiles_nothing_on_cpu(monkeypatch):
    torch_backend = pytest.importorskip('deepspeed.comm.torch')
    builder = torch_backend.get_accelerator().create_op_builder('ShareMemCommBuilder')
    monkeypatch.setattr(type(builder), 'load', lambda self: pytest.fail('DeepSpeed started to compile'))
    compat.apply()
    assert torch_backend.build_shm_op() is None


def test_single_process_environment_only_when_deepspeed_looks_for_mpi(monkeypatch):
    comm = pytest.importorskip('deepspeed.comm.comm')
    calls = []
    monkeypatch.setattr(comm, 'mpi_discovery', lambda **kwargs: calls.append(kwargs))
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', *compat.LAUNCHER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    compat.apply()
    compat.apply()
    assert 'RANK' not in os.environ
    monkeypatch.setenv('OMPI_COMM_WORLD_RANK', '0')
    comm.mpi_discovery(verbose=False)
    assert calls == [dict(verbose=False)] and 'RANK' not in os.environ
    monkeypatch.delenv('OMPI_COMM_WORLD_RANK')
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, 'x')  # so that monkeypatch takes back what the shim sets
        monkeypatch.delenv(name)
    comm.mpi_discovery(verbose=False)
    assert len(calls) == 1 and os.environ['WORLD_SIZE'] == '1' and int(os.environ['MASTER_PORT']) > 0


def test_groups_of_deepspeed_have_the_time_out_of_the_config():
    """In a process of its own: a process group cannot be made twice."""
    script = """
import os, torch, torch.distributed as dist
os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
import deepspeed, dual_loop
dist.init_process_group('gloo', timeout=__import__('datetime').timedelta(seconds=7),
                        store=dist.HashStore(), rank=0, world_size=1)
deepspeed.init_distributed(dist_backend='gloo')
group = deepspeed.comm.new_group([0])
print(int(group._get_backend(torch.device('cpu')).options._timeout.total_seconds()))
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ['7'], done.stderr[-2000:]


@pytest.mark.parametrize('heads', [1, 2, 8])
def test_attention_with_shared_keys_is_counted(heads):
    """Two products of 8 query heads, whatever number of heads of keys they share."""
    q, k, v = (torch.empty(3, n, 5, 16, device='meta', dtype=torch.bfloat16) for n in (8, heads, heads))
    with FlopCounterMode(display=False) as counter:
        torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    assert counter.get_total_flops() == 2 * 2 * 3 * 8 * 5 * 5 * 16


@pytest.mark.parametrize('processes, threads', [('1', 2), ('2', 1), ('16', 1)])
def test_no_more_threads_than_cores(tmp_path, processes, threads):
    """Of a control group with two cores, on a machine that is said to have 64."""
    (tmp_path / 'cpu.max').write_text('200000 100000')
    result = run_python(f"""
import os, pathlib
os.sched_getaffinity = lambda pid: set(range(64))
import cv2, torch
torch.set_num_threads(64)
cv2.setNumThreads(64)
from llava_sam2 import cores
(pathlib.Path({str(tmp_path)!r}) / 'groups').write_text('0::/')
cores.usable_cores.__defaults__ = (pathlib.Path({str(tmp_path)!r}) / 'groups', pathlib.Path({str(tmp_path)!r}))
import dual_loop
print(torch.get_num_threads(), cv2.getNumThreads())
""", LOCAL_WORLD_SIZE=processes)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'{threads} {threads}\n'


def test_fewer_threads_stay_as_they_are():
    result = run_python("""
import torch
torch.set_num_threads(1)
import dual_loop
print(torch.get_num_threads())
""")
    assert result.stdout == '1\n', result.stderr
