"""Refuses settings of optimizer and engine that this loop cannot honour, each with its reason."""

import os
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from llava_sam2.download import require_weights

from ..checkpoints.files import check_whole, read_state
from ..models.teacher import FrozenTeacher
from .resume import check_same_run, go_on_as_begun, latest_checkpoint
from .surgery_rules import build_rule


def check_start(cfg: Config) -> None:
    """What can be seen from the config alone, before minutes go into building a model.

    Raises:
        ValueError: options of workers without any, a schedule that ends before it begins, an unknown surgery rule,
            ZeRO-3, offload without a GPU, or a checkpoint to start from that is not whole, of the other kind, or of
            another number of processes.
        FileNotFoundError: no base weights or checkpoint there, or one without the file of a rank.
    """
    require_weights(cfg.get('model') or {})
    check_loaders(cfg)
    check_schedules(cfg)
    check_rule(cfg)
    engine = (cfg.get('strategy') or {}).get('config')
    zero = (engine or {}).get('zero_optimization', {})
    if zero.get('stage', 0) >= 3:
        raise ValueError('ZeRO-3 cannot train the dual loop: gradient surgery needs two backward passes over weights '
                         'that ZeRO-3 has freed after the first. Use --deepspeed zero2: only LoRA, projector and mask '
                         'decoder are trained, so optimizer states are small')
    if 'offload_optimizer' in zero and not torch.cuda.is_available():
        raise ValueError('zero2_offload moves optimizer states from a GPU to the host, and there is no GPU: use '
                         '--deepspeed zero2')
    if cfg.get('resume') is True and not cfg.get('load_from') and cfg.get('work_dir'):
        with suppress(FileNotFoundError):  # none yet
            cfg.load_from = str(latest_checkpoint(cfg.work_dir))  # mmengine would believe whatever the note says
    if cfg.get('load_from') and '://' not in cfg.load_from:
        check_source(Path(cfg.load_from), cfg, engine is not None)
        if cfg.get('resume'):
            go_on_as_begun(Path(cfg.load_from), cfg)


def check_loaders(cfg: Config) -> None:
    """Refuse what torch refuses of a loader, by the name of its key. Raises ValueError."""
    loaders = {'train_dataloader': cfg.get('train_dataloader'), 'val_dataloader': cfg.get('val_dataloader')}
    train = cfg.get('train_cfg') or {}
    loaders['train_cfg.loop2_dataloader'] = train.get('loop2_dataloader')
    further = train.get('loop_dataloaders') or {}
    loaders |= {f'train_cfg.loop_dataloaders.{name}': loader for name, loader in further.items()}
    for place, loader in loaders.items():
        if not isinstance(loader, dict):
            continue
        for key, least in (('batch_size', 1), ('num_workers', 0)):
            if isinstance(value := loader.get(key), int) and value < least:
                raise ValueError(f'{place}.{key}={value} is too small: use a whole number from {least} on')
        if not loader.get('num_workers', 0):
            for key, off in (('persistent_workers', False), ('prefetch_factor', None), ('timeout', 0)):
                if loader.get(key, off):
                    raise ValueError(f'{place}.num_workers=0 reads data in the process itself, so that {place}.{key}='
                                     f'{loader[key]} has no workers to go by: set {place}.{key}={off} too, or '
                                     f'{place}.num_workers=1')


def check_schedules(cfg: Config) -> None:
    """Refuse a schedule that ends before it begins, as happens when a run is made shorter. Raises ValueError."""
    schedules = cfg.get('param_scheduler') or []
    for number, schedule in enumerate(schedules if isinstance(schedules, list) else [schedules]):
        begin, end = schedule.get('begin', 0), schedule.get('end')
        if isinstance(begin, int) and isinstance(end, int) and end <= begin:
            raise ValueError(f'param_scheduler.{number} begins at step {begin} and ends at {end}: set '
                             f'param_scheduler.{number}.end to more, or param_scheduler.{number}.begin, and the end of '
                             'the schedule before it, to less')


def check_rule(cfg: Config) -> None:
    """Refuse a surgery rule that nobody knows. Raises ValueError."""
    rule = ((cfg.get('train_cfg') or {}).get('surgery') or {}).get('rule')
    if isinstance(rule, str):
        try:
            build_rule(rule)
        except ValueError as error:
            raise ValueError(f'train_cfg.surgery.rule={rule}: {error}') from error


def check_source(path: Path, cfg: Config, with_deepspeed: bool) -> None:
    """Refuse a checkpoint that this run cannot read. Raises as :func:`check_start`."""
    check_whole(path)
    if path.is_dir() != with_deepspeed:
        written, now = ('with', 'without') if path.is_dir() else ('without', 'with')
        raise ValueError(f'{path} was written {written} --deepspeed and cannot be read {now} it')
    if path.is_dir() and cfg.get('resume') and cfg.get('launcher', 'none') in ('none', 'pytorch'):
        # Before DeepSpeed finds that a part is missing or one too many.
        before = read_state(path)[0]['run']
        if 'world_size' in before:  # another train loop keeps no such notes
            check_same_run(path, before, before | dict(world_size=int(os.environ.get('WORLD_SIZE', 1))))
            check_parts_of_ranks(path, before['world_size'])


def check_parts_of_ranks(path: Path, world_size: int) -> None:
    """Refuse a DeepSpeed folder that lacks the file of a rank.

    Every rank looks for all of them: DeepSpeed opens that of its own rank only, and the others would wait for the one
    that has failed.

    Raises:
        FileNotFoundError: names the file.
    """
    for rank in range(world_size):
        name = f'*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt'
        if not list(path.glob(name)):
            raise FileNotFoundError(f'{path} has no {name}, the optimizer state of rank {rank}: copy the whole folder, '
                                    'resume from an earlier checkpoint, or start a new run from it with load_from=PATH '
                                    'and without --resume')


def check_optimizer_settings(runner) -> None:
    """Take clipping from DeepSpeed, which would clip a second time, and refuse what the loop itself does.

    Raises:
        ValueError: the optimizer wrapper accumulates, clips or scales the loss.
    """
    engine = getattr(getattr(runner, 'strategy', None), 'config', None)
    if engine is not None:
        engine['gradient_clipping'] = 0.0  # xtuner passes 1.0 when the config says nothing
    settings = runner.cfg.get('optim_wrapper') or {}
    accumulates = engine['gradient_accumulation_steps'] if engine else settings.get('accumulative_counts', 1)
    if accumulates != 1:
        raise ValueError('optim_wrapper.accumulative_counts must be absent: set train_cfg.accumulative_counts instead')
    if settings.get('clip_grad'):
        raise ValueError('optim_wrapper.clip_grad must be absent: the loop clips after combining, set '
                         'train_cfg.surgery.max_grad_norm instead')
    if settings.get('type') in (AmpOptimWrapper, 'AmpOptimWrapper'):
        raise ValueError('optim_wrapper.type=AmpOptimWrapper has no effect on the loops: use OptimWrapper, and '
                         'model.base.dtype="bfloat16" for bf16')


def check_teacher(runner, model) -> None:
    """Refuse a teacher that would stand still, or could not be found again, without the config saying so.

    Raises:
        ValueError: loops ask a teacher whose averages no hook keeps; or a frozen one, or a frozen listener, is to speak
            with the weights of ``load_from``, which a resumed run has no more.
    """
    asking = [loop.title for loop in model.loops.values() if loop.uses_teacher]
    kept = any(getattr(hook, 'keeps_teacher', False) for hook in runner.hooks)
    if asking and model.teacher.needs_averages and not kept:
        raise ValueError(f'{asking[0]} asks a teacher of averages that no hook keeps, so that it would stand still: '
                         'add dict(type=TeacherEMAHook) to custom_hooks, or say which teacher is meant, '
                         "model.teacher='frozen' (the weights of the start) or 'live' (the student's own). A loop that "
                         'asks none has uses_teacher = False')
    asked = {"model.teacher='frozen'": model.teacher} if asking else {}
    asked |= {f"model.listener={loop.listener!r}": loop.reward.listener for loop in model.loops.values()
              if getattr(loop, 'reward', None) is not None}
    frozen = [setting for setting, teacher in asked.items() if isinstance(teacher, FrozenTeacher)]
    if frozen and runner._load_from and not runner._resume:
        raise ValueError(f'{frozen[0]} speaks with the weights of model.base, not with those of load_from='
                         f'{runner._load_from}, which a resumed run would not have: export that checkpoint '
                         '(tools/convert_ckpt_to_hf.py) and set model.base.pretrained to the folder')
