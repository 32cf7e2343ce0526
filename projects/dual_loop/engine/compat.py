"""Every change this project makes to a library, in one place.

Each function names the fault it works around and the version that ends it; :func:`apply` runs them all and is called
by ``import dual_loop``. A config has ``__import__('dual_loop')`` as its first line, so under ``xtuner train``
everything here is in place before the runner, and before the checkpoint of ``--resume`` is read.

Nothing here needs xtuner, deepspeed, peft or transformers, and none but xtuner's small table of names is imported:
data and evaluation tools run without the first two. The shims for DeepSpeed act when DeepSpeed is already loaded, which
is so under ``xtuner train``: its train module is imported before any config is read. A script that loads it later calls
:func:`apply` again; it is idempotent.
"""
import importlib
import importlib.util
import os
import socket
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch.utils import flop_counter

from llava_sam2.cores import usable_cores

DEEPSPEED_DIR = Path(__file__).resolve().parent / 'deepspeed'

# What a launcher sets; with any of them present DeepSpeed finds its place among the processes by itself.
LAUNCHER_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'PMI_RANK', 'AZUREML_EXPERIMENT_ID')


def apply() -> None:
    """Put every shim in place. Calling it again is harmless and covers libraries that were loaded in between."""
    hide_broken_bitsandbytes()
    accept_cpu_ranks()
    answer_cpu_bf16()
    allow_checkpoint_classes()
    register_deepspeed_names()
    start_single_deepspeed_process()
    leave_out_shared_memory_op()
    keep_group_timeout()
    check_before_building()
    leave_out_cudnn_attention()
    count_shared_keys()
    bound_threads()
    shorten_console()


def require_xtuner() -> None:
    """Raise with the remedy when XTuner is missing. For the entry points that train; everything else runs without it.

    Raises:
        ModuleNotFoundError: XTuner is not installed in this environment.
    """
    if importlib.util.find_spec('xtuner') is None:
        raise ModuleNotFoundError(
            f'Training needs xtuner, which is not installed beside {sys.executable}: run tools/install.sh, or '
            '`pip install --no-deps -r requirements/lock.txt` (plain `pip install xtuner` downgrades transformers).')


def train_by_xtuner(arguments: list[str]) -> None:
    """Run the train command of XTuner in this process with these arguments."""
    from xtuner.tools import train

    apply()  # once more, now that DeepSpeed is loaded
    sys.argv = [train.__file__, *arguments]
    train.main()


def hide_broken_bitsandbytes() -> None:
    """Make a bitsandbytes that cannot be imported look absent.

    bitsandbytes 0.45.0, which xtuner 0.2.0 demands, imports ``triton.ops``; current Triton has no such module, and PEFT
    then fails on every LoRA layer because it finds the package and imports it. Ends when xtuner allows a later one.
    """
    if 'bitsandbytes' in sys.modules or importlib.util.find_spec('bitsandbytes') is None:
        return
    try:
        importlib.import_module('bitsandbytes')
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # find_spec() answers None for a module whose entry in sys.modules is None, and importing it raises ImportError.
        for name in [name for name in sys.modules if name.split('.')[0] == 'bitsandbytes']:
            del sys.modules[name]
        sys.modules['bitsandbytes'] = None
        peft_probes = sys.modules.get('peft.import_utils')
        if peft_probes is not None:  # PEFT caches what it found
            peft_probes.is_bnb_available.cache_clear()
        print(f'dual_loop: bitsandbytes is installed but cannot be imported ({error}); it is ignored, since nothing '
              'here needs it. `pip uninstall bitsandbytes` removes this line.', file=sys.stderr)


def accept_cpu_ranks() -> None:
    """Let several processes train on a host without a GPU.

    ``mmengine.dist.init_dist`` calls ``torch.cuda.set_device(local_rank)`` whatever the backend, in every release up to
    0.10.7. Ends when mmengine asks first whether there is a GPU.
    """
    original = torch.cuda.set_device
    if getattr(original, 'accepts_cpu_ranks', False):
        return

    def set_device(device):
        # Asked at the call and not at import: the question initialises the driver, which must not happen before a fork.
        if torch.cuda.is_available():
            original(device)

    set_device.accepts_cpu_ranks = True
    torch.cuda.set_device = set_device


def answer_cpu_bf16() -> None:
    """Give ``torch.cpu`` the question that xtuner asks of its device module for ``bf16: auto``.

    xtuner 0.2.0 calls ``torch.<device>.is_bf16_supported()``, which torch 2.11 has for CUDA only. Every CPU that torch
    runs on computes in bfloat16, in software if need be. Ends when torch has the function.
    """
    if not hasattr(torch.cpu, 'is_bf16_supported'):
        torch.cpu.is_bf16_supported = lambda: True


def allow_checkpoint_classes() -> None:
    """Make the checkpoints that mmengine writes readable with ``weights_only=True``, the default since torch 2.6.

    mmengine 0.10.7 pickles the *methods* of its HistoryBuffer along with the values, which needs ``builtins.getattr``;
    allowing that would undo the protection. They are left out when writing, since the class sets them again when
    reading, and the plain data classes that remain are allowed. Ends when mmengine stops pickling methods.
    """
    HistoryBuffer.__getstate__ = _history_without_methods
    scalars = ('float64', 'float32', 'float16', 'int64', 'int32', 'uint64', 'uint32', 'uint8', 'bool')
    torch.serialization.add_safe_globals([
        HistoryBuffer, ConfigDict, np.ndarray, np.dtype, np._core.multiarray._reconstruct, np._core.multiarray.scalar,
        *(type(np.dtype(name)) for name in scalars)
    ])


def _history_without_methods(history: HistoryBuffer) -> dict:
    return {name: value for name, value in history.__dict__.items() if name != 'statistics_methods'}


def register_deepspeed_names() -> None:
    """Teach ``xtuner train --deepspeed`` the short names of the JSON files in ``engine/deepspeed``, e.g. ``zero2``.

    xtuner 0.2.0 looks names up in the plain dict ``xtuner.configs.cfgs_name_path``, which holds ``deepspeed_zero2`` and
    the like. Its names win over ours. Does nothing without xtuner.
    """
    if importlib.util.find_spec('xtuner') is None:
        return
    names = importlib.import_module('xtuner.configs').cfgs_name_path
    for path in sorted(DEEPSPEED_DIR.glob('*.json')):
        names.setdefault(path.stem, str(path))
    names.setdefault('zero3', names['deepspeed_zero3'])  # to be refused with its reason


def start_single_deepspeed_process() -> None:
    """Let ``--deepspeed`` run in one process without a launcher and without MPI.

    DeepSpeed (0.17.6, and 0.19 alike) takes a missing ``RANK`` for an MPI start and fails on the absent mpi4py. Only
    where that search would start, and only without any launcher's variables, the environment of a single process is set
    instead. Ends when DeepSpeed starts alone by itself.
    """
    comm = sys.modules.get('deepspeed.comm.comm')
    if comm is None or getattr(comm.mpi_discovery, 'starts_single_process', False):
        return
    discover = comm.mpi_discovery

    def mpi_discovery(*args, **kwargs):
        if any(name in os.environ for name in LAUNCHER_VARIABLES) or importlib.util.find_spec('mpi4py') is not None:
            return discover(*args, **kwargs)
        os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=_free_port())

    mpi_discovery.starts_single_process = True
    comm.mpi_discovery = mpi_discovery


def leave_out_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling an extension when it starts on a CPU.

    DeepSpeed 0.17.6 builds ``deepspeed_shm_comm`` with the C++ compiler on every first start, half a minute, and fails
    without a compiler or when the environment's path has a space in it. The operator only shortens the all-reduce of
    inference; training never calls it. Ends when DeepSpeed builds it on first use.
    """
    ops = sys.modules.get('deepspeed.ops')
    if ops is not None:
        ops.__compatible_ops__['deepspeed_shm_comm'] = False


def keep_group_timeout() -> None:
    """Give DeepSpeed's groups of ranks the time-out of the world's, ``env_cfg.dist_cfg.timeout``.

    DeepSpeed 0.17.6 makes a group for ZeRO without one, and torch then takes 30 minutes (10 with NCCL), so that the
    other ranks wait so long for one that is gone. Ends when DeepSpeed or torch hands the time-out on.
    """
    module = sys.modules.get('deepspeed.comm.torch')
    if module is None or getattr(module.TorchBackend.new_group, 'keeps_timeout', False):
        return

    def new_group(self, ranks):
        world = torch.distributed.distributed_c10d._get_default_group()
        device = torch.device('cpu' if torch.distributed.get_backend() == 'gloo' else 'cuda')
        timeout = world._get_backend(device).options._timeout
        return torch.distributed.new_group(ranks, timeout=timeout)

    new_group.keeps_timeout = True
    module.TorchBackend.new_group = new_group


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def check_before_building() -> None:
    """Refuse settings that cannot work before the runner builds anything from them, under stock ``xtuner train`` too.

    mmengine builds the model before the loop, so a typo in a model's key would end in a bare TypeError, one in a config
    with a stock loop in nothing at all, and ZeRO-3 or a wrong checkpoint would show after minutes. Only configs whose
    ``custom_imports`` name this package or a module of it are looked at. Does nothing before ``mmengine.runner`` is
    loaded, which takes seconds. Ends when mmengine checks keys.
    """
    module = sys.modules.get('mmengine.runner')
    for runner in (module.Runner, module.FlexibleRunner) if hasattr(module, 'FlexibleRunner') else ():
        original = runner.from_cfg.__func__
        if getattr(original, 'checks_settings', False):
            continue

        def from_cfg(cls, cfg, original=original):
            if _imports_this_package(cfg):
                from dual_loop.stop import end_with_launcher, interrupt_from_now_on

                from .config_check import check_config_keys
                from .data_order import without_leftovers
                from .ownership import own_work_dir
                from .settings_check import check_start
                end_with_launcher()
                interrupt_from_now_on()  # what is built from here on starts processes and holds locks
                check_config_keys(cfg)
                check_start(cfg)
                own_work_dir(cfg)
                sampler = (cfg.get('train_dataloader') or {}).get('sampler')
                if isinstance(sampler, dict):  # for stock loops too; in place, so that the config can still be dumped
                    for key in sampler.keys() - without_leftovers(sampler).keys():
                        del sampler[key]
                if not torch.cuda.is_available():
                    cfg.merge_from_dict(dict(env_cfg=dict(dist_cfg=dict(backend='gloo'))))  # NCCL needs GPUs
            return original(cls, cfg)

        from_cfg.checks_settings = True
        runner.from_cfg = classmethod(from_cfg)


def _imports_this_package(cfg) -> bool:
    names = (cfg.get('custom_imports') or {}).get('imports') or ()
    names = [names] if isinstance(names, str) else names
    return any(name.split('.')[0] == 'dual_loop' for name in names)


def leave_out_cudnn_attention() -> None:
    """Let torch choose its flash kernel where it would take cuDNN's.

    cuDNN 9 with torch 2.11 plans anew for every length of the rows, and for single queries in bf16 its last bits differ
    from run to run. Ends when runs with it repeat each other.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def count_shared_keys() -> None:
    """Let torch count the arithmetic of attention whose query heads share keys and values.

    With a memory budget between 0 and 1 inductor asks for it, and torch 2.11 answers with an AssertionError. Whether
    it asks depends on the shapes: a layer may compile for one batch and fail for another. Ends when torch counts it.
    """
    original = flop_counter.sdpa_flop_count
    if getattr(original, 'counts_shared_keys', False):
        return

    def sdpa_flop_count(query_shape, key_shape, value_shape) -> int:
        heads = query_shape[1]
        return original(query_shape, *((each[0], heads, *each[2:]) for each in (key_shape, value_shape)))

    sdpa_flop_count.counts_shared_keys = True
    flop_counter.sdpa_flop_count = sdpa_flop_count


def bound_threads() -> None:
    """Start no more threads than there are cores for this process; processes of one launcher share them.

    torch 2.11 and OpenCV 5 look at the machine and at the affinity mask, but not at the quota of every control group: a
    container with two cores of a hundred would spend its time on changing threads. Ends when they do.
    """
    import cv2

    cores = max(1, usable_cores() // int(os.environ.get('LOCAL_WORLD_SIZE') or 1))
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    if cv2.getNumThreads() > cores:
        cv2.setNumThreads(cores)


def shorten_console() -> None:
    """Keep off the console what :mod:`dual_loop.engine.console` names, in runs of configs that import this package.

    mmengine 0.10.7 begins every run with 600 lines, and DeepSpeed 0.17.6 warns that a machine without GPU has none.
    The first does nothing before ``mmengine.runner`` is loaded. Ends when these log at levels that one can choose from.
    """
    from .console import keep_short, leave_out_missing_gpu

    leave_out_missing_gpu()
    module = sys.modules.get('mmengine.runner')
    for runner in (module.Runner, module.FlexibleRunner) if hasattr(module, 'FlexibleRunner') else ():
        original = runner._log_env
        if getattr(original, 'shortens_console', False):
            continue

        def log_env(self, *args, original=original):
            if _imports_this_package(self.cfg):
                keep_short(self.logger)
                self.logger.info(f'log in {self.log_dir}, the whole config in its vis_data/config.py')
            original(self, *args)

        log_env.shortens_console = True
        runner._log_env = log_env
