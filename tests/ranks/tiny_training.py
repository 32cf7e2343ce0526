"""A tiny run of the real training loop as a config file, and a hook that records what it did.

The parts of one run are here, ``write config -> train -> record``; a dict tells what is special to a run, see
:data:`DEFAULTS`. XTuner's own train command builds them, so nothing between its command line and the optimizer is a
stand-in.
"""

import functools
import hashlib
import json
import sys
from pathlib import Path

import torch
from faults import misbehave
from mmengine._strategy import deepspeed as deepspeed_strategy
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, HOOKS, MODELS

import dual_loop  # noqa: F401  library shims
from dual_loop.engine import compat
from dual_loop.engine.hooks import TeacherEMAHook
from dual_loop.engine.masters import master_weights
from dual_loop.models import CaptionLoop, DualLoopModel, MaskLoop, SupervisedLoop
from llava_sam2.model import VideoLLaVASAMModel

#: ZeRO stage of each mode that runs under DeepSpeed, and whether the module is cast to bf16.
ZERO = dict(zero1=(1, False), zero2=(2, False), zero2_bf16=(2, True))

#: AdamW of the shipped configs with three values chosen so that rounding cannot hide behind it or be blown up by it.
#: Measured on two ranks against one process, max |p - p_ref| / max |p_ref - p_start| of the worst tensor:
#:
#: - eps 1e-8, lr 1e-3, weight decay 0.05: 0.7, and without the seven key biases of the mask decoder 7e-4. Softmax does
#:   not see a key bias, so its gradient is zero but for rounding (1e-11), and AdamW makes whole steps of it; elements
#:   of other tensors near 1e-9 fare likewise. eps 1e-6: 1.3e-2 and 1e-4; eps 1e-5: 1.5e-3 and 1e-4.
#: - eps 1e-4, lr 5e-3: 9e-5, now bounded by tensors that move by a few 10 000 units in their last place.
#: - eps 1e-4, lr 5e-3, weight decay 0.2, which moves the key biases and such tensors more: 5e-5.
#:
#: Without averaging the ratio is near 1 in each of them, and the first moments, which none of the three touches, are
#: compared as well.
OPTIMIZER = dict(type='AdamW', lr=5e-3, betas=(0.9, 0.999), weight_decay=0.2, eps=1e-4)

#: What a run is, unless its case says otherwise.
DEFAULTS = dict(
    mode='plain',  # plain (one process), ddp, zero1, zero2 or zero2_bf16
    batch_size=2,  # of one process
    ranks=2,  # processes that the test starts
    accumulation=1, clip=None, checkpointing=False, compile=False, seed=0, beta=0.5, rule='orthogonal', steps=6,
    samples=('loop1', 'loop2'),  # names of the lists of samples that feed the two loops
    shuffle=True,
    nan=None,  # dict(loop, step, rank): the loss that is made NaN, in the first micro-batch of that step
    averaging=True,  # False leaves every rank with its own gradients
    snapshots=False,  # note a digest of weights, EMA and optimizer state after every step
    workers=0,  # of each loader
    dropout=0.0,  # of LoRA
    teacher='ema',
    validate_every=0,  # so many steps
    loop1=None,  # further arguments of MaskLoop
    supervised=None,  # a third loop on the samples of loop 2: 'joined' to loop 1's gradient, or with its 'own'
    checkpoint_interval=None,  # save every so many steps, and after the last
    save_total_limit=None,
    cycle=None,  # arguments of CycleHook
    fault=None,  # arguments of faults.SignalAt
    bad=None,  # dict(loader='train' or 'val', sample=index or None while opening, and arguments of faults.misbehave)
    loader_timeout=10,  # seconds
    group_timeout=300,  # seconds
    rank_log=False,  # RankLogHook
    stop_after=None,  # end the run after so many steps
    resume=None,  # checkpoint to continue from, as 'name of the case/iter_2.pth'
)


def write_config(case: dict, sizes: dict, samples: Path, work_dir: Path) -> Path:
    """Write the config file of one run.

    Args:
        case: ``name`` and whatever differs from :data:`DEFAULTS`.
        sizes: of the network, arguments of ``Sa2VAConfig``.
        samples: file with a dict of lists of samples.
        work_dir: of the run.

    Returns:
        The file, one per rank.
    """
    case = DEFAULTS | case

    bad = case['bad'] or dict(loader=None)

    def loader(name: str, key: str = '') -> dict:
        return dict(
            dataset=dict(type='SavedSamples', path=str(samples), name=name, bad=bad if bad['loader'] == key else None),
            # Rank r of R gets every R-th index, so the batches of all ranks together are those of one process.
            sampler=dict(type='DefaultSampler', shuffle=case['shuffle']),
            collate_fn=dict(type='dual_loop.datasets.collate_samples'),
            batch_size=case['batch_size'],
            num_workers=case['workers'],
            persistent_workers=case['workers'] > 0,
        )

    loop1, loop2 = case['samples']
    hooks = [dict(type='TeacherEMAHook', decay=0.999),
             dict(type='RecordRun', snapshots=case['snapshots'], stop_after=case['stop_after'])]
    if case['cycle']:
        hooks.append(dict(type='CycleHook', **case['cycle']))
    if case['fault']:
        hooks.append(dict(type='SignalAt', **case['fault']))
    if case['rank_log']:
        hooks.append(dict(type='RankLogHook'))
    interval = case['checkpoint_interval']
    checkpoint = dict(type='AtomicCheckpointHook', interval=interval, save_total_limit=case['save_total_limit'])
    validation = {}
    if case['validate_every']:
        validation = dict(
            val_dataloader=loader(loop2, 'val') | dict(sampler=dict(type='DefaultSampler', shuffle=False),
                                                batch_sampler=dict(type='dual_loop.evaluation.GlobalBatchSampler'),
                                                persistent_workers=False),
            val_cfg=dict(type='ValLoop'), val_evaluator=dict(type='dual_loop.evaluation.ReferringMetric'))
    config = dict(
        custom_imports=dict(imports=['dual_loop.registered', 'tiny_training', 'faults'], allow_failed_imports=False),
        experiment_name=work_dir.name,
        model=dict(type='stirred_model', sizes=sizes, seed=case['seed'], checkpointing=case['checkpointing'],
                   compile=case['compile'], dropout=case['dropout'], nan=case['nan'],
                   supervised=case['supervised'], teacher=case['teacher'], loop1=case['loop1'] or {}),
        train_dataloader=loader(loop1, 'train'),
        train_cfg=dict(
            type='DualLoopTrainLoop', loop2_dataloader=loader(loop2), max_steps=case['steps'],
            loop_dataloaders=dict(supervised=loader(loop2)) if case['supervised'] else None,
            accumulative_counts=case['accumulation'], preview_interval=0, loader_timeout=case['loader_timeout'],
             val_interval=case['validate_every'],
            surgery=dict(rule=case['rule'], beta=case['beta'], max_grad_norm=case['clip'])),
        optim_wrapper=dict(type='OptimWrapper', optimizer=OPTIMIZER),
        param_scheduler=[dict(type='LinearLR', start_factor=0.5, begin=0, end=4, by_epoch=False)],
        default_hooks=dict(checkpoint=checkpoint if interval else None),
        **validation,
        custom_hooks=hooks,
        log_processor=dict(by_epoch=False),
        env_cfg=dict(dist_cfg=dict(backend='gloo', timeout=case['group_timeout'])),
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None),
        randomness=dict(seed=case['seed']),
        log_level='WARNING',
        default_scope='mmengine',
    )
    path = work_dir / f'rank{get_rank()}' / 'config.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    Config(config).dump(path)
    return path


REGISTER_ONCE = functools.cache(deepspeed_strategy.register_deepspeed_optimizers)


def train(case: dict, config: Path, work_dir: Path, launcher: str) -> None:
    """Run XTuner's train command on ``config`` in this process."""
    from xtuner.tools import train as command

    compat.apply()  # for DeepSpeed, which is loaded now
    # mmengine registers DeepSpeed's optimizers for every strategy it builds, and fails at the second one.
    deepspeed_strategy.register_deepspeed_optimizers = REGISTER_ONCE
    arguments = ['train', str(config), '--work-dir', str(work_dir), '--launcher', launcher]
    if case.get('mode') in ZERO:
        # The shipped settings, but fp32 where wanted: XTuner would fill in bf16.
        stage, bf16 = ZERO[case['mode']]
        settings = json.loads((compat.DEEPSPEED_DIR / f'zero{stage}.json').read_text())
        settings['bf16'] = dict(enabled=bf16)
        file = config.with_name('deepspeed.json')
        file.write_text(json.dumps(settings))
        arguments += ['--deepspeed', str(file)]
    if case.get('resume'):
        arguments += ['--resume', str(work_dir.parent / case['resume'])]
    before, sys.argv = sys.argv, arguments
    try:
        command.main()
    finally:
        sys.argv = before


@DATASETS.register_module()
class SavedSamples(torch.utils.data.Dataset):
    """The list ``name`` of samples in the file ``path``, of which a ``bad`` one misbehaves when it is read."""

    def __init__(self, path: str, name: str, bad: dict | None = None):
        self.samples = torch.load(path, weights_only=True)[name]
        self.bad = bad
        if bad and bad['sample'] is None:
            misbehave(bad['action'], None)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        if self.bad and index == self.bad['sample']:
            misbehave(self.bad.get('action'), self.bad.get('ask'))
        return self.samples[index]


@MODELS.register_module()
def stirred_model(sizes: dict, seed: int, checkpointing: bool, compile: bool, dropout: float, nan: dict | None,
                  supervised: str | None, teacher: str = 'ema', loop1: dict | None = None) -> DualLoopModel:
    """Tiny model with random weights in which no trainable is zero; ``nan`` breaks one loss of one rank."""
    torch.manual_seed(seed)
    base = VideoLLaVASAMModel(tokenizer='assets/tiny', network=sizes, random_weights=True,
                              lora=dict(r=2, alpha=4, dropout=dropout), loss_mask=dict(num_points=64),
                              checkpointing=checkpointing, compile=compile, seed=seed)
    for parameter in base.trainables().values():
        # LoRA's B, and biases: one without gradient (of a key) moves by its decay alone.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    base.random_weights = False  # as if they had been loaded: checkpoints hold the trainables only
    # With little weight on the answer, which both loops learn, the gradients of the loops agree and conflict by turns.
    model = DualLoopModel(base, teacher=teacher, loops=[
        MaskLoop(topk=16, max_caption_len=6, denoise_weight=0.5, answer_weight=0.1, **(loop1 or {})),
        CaptionLoop(max_caption_len=6, answer_weight=0.1),
        *([SupervisedLoop(answer_weight=0.1, joins=dict(joined='loop1', own=None)[supervised])] if supervised else []),
    ])
    if nan is not None and nan['rank'] == get_rank():
        loop, pending = model.loops[f'loop{nan["loop"]}'], [True]
        original = loop.forward

        def broken(model, data, step, **kwargs):
            output = original(model, data, step, **kwargs)
            if step == nan['step'] and pending:
                output['loss'] = output['loss'] * float('nan')
                pending.clear()
            return output

        loop.forward = broken
    return model


@HOOKS.register_module()
class RecordRun(Hook):
    """Write ``record.pt`` beside the config file of this rank when training ends.

    It holds the class of the ``wrapper``, ``stage`` of ZeRO, ``checkpointing``, ``start`` and ``final`` (name -> fp32
    trainable), ``ema``, ``num_updates`` of the EMA, ``exp_avg`` (name -> AdamW's first moment, gathered under
    ZeRO), ``scalars`` (per step, what the loop gives to the log, but no times), ``order`` (per step and loop, the names
    of the samples), ``history`` (the cosine of every step as the message hub has it), ``masters`` (the fp32 value of
    the first trainable, at the start and after every step) and ``snapshots`` (per step, digests of weights, EMA and
    optimizer state).
    """

    # After the EMA.
    priority = 'VERY_LOW'

    def __init__(self, snapshots: bool = False, stop_after: int | None = None):
        self.take_snapshots = snapshots
        self.stop_after = stop_after
        self.record: dict = dict(scalars=[], order=[], masters=[], snapshots=[])

    def before_train(self, runner) -> None:
        stage = getattr(runner.model, 'zero_optimization_stage', int)()
        saving = trained_model(runner).base.network.language_model.is_gradient_checkpointing
        self.record |= dict(
            start=weights(runner), masters=[first_master(runner)], wrapper=type(runner.model).__name__, stage=stage,
            checkpointing=saving)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.record['scalars'].append({name: value for name, value in outputs.items() if 'seconds' not in name}
                                      | dict(lr=runner.optim_wrapper.get_lr()['lr'][0]))
        self.record['order'].append({loop: [batch['sample_ids'] for batch in batches]
                                     for loop, batches in data_batch.items()})
        self.record['masters'].append(first_master(runner))
        if self.take_snapshots:
            states = dict(weights=weights(runner), ema=ema(runner).values, moments=first_moments(runner))
            self.record['snapshots'].append({name: digest(state) for name, state in states.items()})
        if self.stop_after is not None and runner.iter + 1 >= self.stop_after:
            runner.train_loop.stop_training = True

    def after_train(self, runner) -> None:
        average = ema(runner)
        self.record |= dict(final=weights(runner), ema=average.values, num_updates=average.num_updates,
                            exp_avg=first_moments(runner),
                            history=torch.from_numpy(runner.message_hub.get_scalar('train/cosine').data[0]))
        torch.save(self.record, Path(runner.work_dir) / f'rank{get_rank()}' / 'record.pt')


def trained_model(runner) -> DualLoopModel:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def trainables(runner) -> dict[str, torch.nn.Parameter]:
    return trained_model(runner).trainables()


def weights(runner) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().float().clone() for name, parameter in trainables(runner).items()}


def first_master(runner) -> torch.Tensor:
    masters = dict(master_weights(trainables(runner).items()))
    return next(iter(masters.values())).detach().clone()


def ema(runner):
    [hook] = [hook for hook in runner.hooks if isinstance(hook, TeacherEMAHook)]
    return hook.ema


def first_moments(runner) -> dict[str, torch.Tensor]:
    """AdamW's running mean of the gradient; under ZeRO every rank holds a part, and all must call this together."""
    if 'DeepSpeed' in type(runner.optim_wrapper).__name__:
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {name: safe_get_full_optimizer_state(p, 'exp_avg') for name, p in trainables(runner).items()}
    else:
        state = runner.optim_wrapper.optimizer.state
        found = {name: state[p].get('exp_avg') for name, p in trainables(runner).items()}
    return {name: torch.zeros(()) if value is None else value.detach().clone() for name, value in found.items()}


def digest(tensors: dict[str, torch.Tensor]) -> str:
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()
