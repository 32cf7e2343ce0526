"""The training loop: one iteration is one optimizer step over all loops of the model."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.dist import all_gather_object, barrier, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from dual_loop.datasets.mix import source_table
from dual_loop.datasets.quarantine import set_work_dir
from dual_loop.datasets.shared_memory import check_shared_memory
from dual_loop.datasets.workers import LOADER_TIMEOUT, AwaitedLoader
from dual_loop.loop_names import loader_key, loop_title
from dual_loop.models.loop import Loop, as_numbers
from dual_loop.stop import EXIT_STATUS, StopAgreed, StopSignal, is_lost_rank
from llava_sam2.compiled_layers import keep_compiled
from llava_sam2.randomness import seed_for
from llava_sam2.trainable import rarely_reached

from .agreement import GradientAgreement
from .config_check import check_config_keys
from .data_order import build_dataloader, endless_batches
from .flat import PARAMETER_GROUPS, FlatLayout, all_reduce_mean_, groups_of_loops
from .gradient_watch import GradientWatch
from .ownership import owning
from .resume import changed_settings, check_same_run, describe_run, resumed_from
from .settings_check import check_optimizer_settings, check_teacher
from .stopwatch import Stopwatch
from .surgery import GradientSurgery
from .unwrapped import unwrapped


class NonFiniteGradients(RuntimeError):
    """Too many optimizer steps in a row had a loss or gradient that is not finite."""


@LOOPS.register_module()
class DualLoopTrainLoop(BaseLoop):
    """Accumulate the gradient of every loop of the model, combine them by surgery, clip, step.

    The losses run on the raw module and their gradients are averaged over ranks here; the combined gradient reaches
    the optimizer as the gradient of a surrogate loss through the wrapped model
    (docs/decisions.md, "Surgery acts on averaged gradients").

    A resumed run continues exactly: what a step reads and draws depends on its number alone. SIGTERM or Ctrl-C abandons
    the running step, saves the state after the last finished one and ends the process with status 143. So does a loader
    that gives no batch any more, but with status 1.

    Args:
        runner: the mmengine runner.
        dataloader: of the first loop.
        loop2_dataloader: of loop 2; short for ``loop_dataloaders=dict(loop2=...)``.
        loop_dataloaders: of each further loop, by its name.
        max_steps: optimizer steps.
        accumulative_counts: micro-batches of each loop per optimizer step.
        surgery: arguments of :class:`GradientSurgery`.
        groups: parameter groups, see :data:`~dual_loop.engine.flat.PARAMETER_GROUPS`.
        agreement: log how much each gradient agrees with that of the step before; takes a buffer for each.
        preview_interval: every so many steps, the first and the last included, loops keep what the pictures need.
        val_interval: every so many steps run the validation loop of the config; 0 never does.
        max_skipped_steps: abort after so many steps in a row without a finite gradient.
        loader_timeout: seconds to wait for a batch of any loader, the validation's too; 0 for no limit.
    """

    def __init__(
        self,
        runner,
        dataloader: DataLoader | dict,
        loop2_dataloader: DataLoader | dict | None = None,
        loop_dataloaders: Mapping[str, DataLoader | dict] | None = None,
        max_steps: int | None = None,
        accumulative_counts: int = 1,
        surgery: Mapping | None = None,
        groups: Mapping[str, Mapping] = PARAMETER_GROUPS,
        agreement: bool = False,
        preview_interval: int = 50,
        val_interval: int = 0,
        max_skipped_steps: int = 10,
        loader_timeout: float = LOADER_TIMEOUT,
    ):
        check_config_keys(runner.cfg)
        if max_steps is None:
            raise ValueError('train_cfg.max_steps is missing: say how many optimizer steps the run has')
        if max_steps < 1 or accumulative_counts < 1:
            raise ValueError(f'max_steps and accumulative_counts must be at least 1, got {max_steps}, '
                             f'{accumulative_counts}')
        if val_interval and runner.val_loop is None:
            raise ValueError(f'train_cfg.val_interval={val_interval} needs val_dataloader, val_cfg and val_evaluator')
        super().__init__(runner, build_dataloader(runner, dataloader, accumulative_counts))
        further = dict(loop_dataloaders or {})
        if loop2_dataloader is not None:
            if 'loop2' in further:
                raise ValueError('train_cfg.loop2_dataloader and train_cfg.loop_dataloaders.loop2 are the same loader: '
                                 'set one of them')
            further = dict(loop2=loop2_dataloader) | further
        #: Of the loops after the first, by name.
        self.further_dataloaders = {name: build_dataloader(runner, loader, accumulative_counts)
                                    for name, loader in further.items()}
        for loader in (self.dataloader, *self.further_dataloaders.values()):
            set_work_dir(loader.dataset, runner.work_dir)
        check_optimizer_settings(runner)
        self._max_iters = max_steps
        self._iter = 0
        self.accumulative_counts = accumulative_counts
        self.surgery = GradientSurgery(**(surgery or {}))
        self.groups = groups
        self.logs_agreement = agreement
        self.preview_interval = preview_interval
        self.val_interval = val_interval
        self.max_skipped_steps = max_skipped_steps
        self.loader_timeout = loader_timeout
        self.skipped_in_a_row = 0
        #: What the picture hook shows of the running step: the collated batch, captions and predictions; or None.
        self.preview: dict | None = None

    # What mmengine asks of a loop; a step-based run is one epoch to it.
    max_epochs = 1
    epoch = 0
    stop_training = False

    @property
    def max_iters(self) -> int:
        return self._max_iters

    @property
    def iter(self) -> int:
        return self._iter

    @owning
    def run(self) -> torch.nn.Module:
        """Train from the current step to ``max_steps``.

        Raises:
            SystemExit: when all ranks had to stop and the state is saved; with :data:`stop.EXIT_STATUS` if they were
                asked to, with 1 if a loader gives no batch any more.
        """
        self.prepare()
        with StopSignal() as self.stop:
            loaders = self.awaited_loaders(self.stop.abandonable)
            try:
                with self.stop.noting():
                    self.train(loaders)
                    return self.runner.model
                self.stop.raise_if_agreed(self.device)  # left in validation: the others come by after its batch
            except StopAgreed:
                pass
            except RuntimeError as error:
                if is_lost_rank(error):
                    print_log('another rank is gone, or did not answer within env_cfg.dist_cfg.timeout; nothing could '
                              'be saved, since that takes all ranks: resume from the latest checkpoint', 'current',
                              logging.ERROR)
                raise
            finally:
                for loader in loaders.values():
                    loader.end()
            self.save_and_exit()

    def awaited_loaders(self, abandonable: Callable[[], AbstractContextManager]) -> dict[str, AwaitedLoader]:
        """The loader of each loop by its name, and that of validation as ``val``."""
        titles = {name: f'{loop_title(name)} ({loader_key(name) if number else "train_dataloader"})'
                  for number, name in enumerate(self.loops)}
        loaders = dict(self.dataloaders)
        if self.runner.val_loop is not None:
            titles['val'], loaders['val'] = 'validation (val_dataloader)', self.runner.val_loop.dataloader
        return {name: AwaitedLoader(loader, titles[name], self.loader_timeout, abandonable)
                for name, loader in loaders.items()}

    def save_and_exit(self) -> NoReturn:
        """Save the state after the last finished step. All ranks must call it."""
        if self.stop.failure:
            print_log(self.stop.failure, 'current', logging.ERROR)
        if not any(hasattr(hook, 'save_now') for hook in self.runner.hooks):
            print_log('stopped; NOTHING was saved, since no hook of the config saves: add AtomicCheckpointHook',
                      'current', logging.ERROR)
            raise SystemExit(1)
        self.runner.call_hook('save_now')
        why = 'no data' if self.stop.failed else 'asked to stop'
        print_log(f'{why}: the state after step {self._iter} is saved', 'current', logging.WARNING)
        raise SystemExit(1 if self.stop.failed else EXIT_STATUS)

    @property
    def loops(self) -> dict[str, Loop]:
        """The loops of the model by name, in the order of the config."""
        return self.raw_model.loops

    @property
    def dataloaders(self) -> dict[str, DataLoader]:
        """The loader of each loop.

        Raises:
            ValueError: a loop has none, or a loader no loop.
        """
        first, *others = self.loops
        if missing := [name for name in others if name not in self.further_dataloaders]:
            raise ValueError(f'{loop_title(missing[0])} has no data: set {loader_key(missing[0])}')
        if idle := sorted(self.further_dataloaders.keys() - set(others)):
            raise ValueError(f'{loader_key(idle[0])} is set, but the model has no such loop after the first '
                             f'({", ".join(self.loops)}): remove it, or add the loop to model.loops')
        return {first: self.dataloader} | {name: self.further_dataloaders[name] for name in others}

    def prepare(self) -> None:
        """Lay out the gradients; check that a resumed run is the one it continues, and that batches have room."""
        runner, model = self.runner, self.raw_model
        loaders = self.dataloaders
        model.base.seed = runner.seed
        model.base.check_token_rows()
        check_teacher(runner, model)
        if model.base.compiled:
            kept = keep_compiled(Path(runner.work_dir).resolve() / 'compiled')
            print_log('layers are compiled in the first steps, which takes a minute or two, and once more for each new '
                      f'kind of shape; what was compiled is kept in {kept}', 'current')
        # DeepSpeed has cast the whole module, and in bf16 positions are off by radians after a few thousand tokens.
        model.base.restore_fp32_buffers()
        self.parameters = list(model.trainables().values())
        self.device = self.parameters[0].device
        own = [loop.name for loop in self.loops.values() if loop.joins is None]
        #: Loop -> number of the gradient that its own is added to.
        self.gradient_of = {loop.name: own.index(loop.joins or loop.name) for loop in self.loops.values()}
        summed = [[name for name, number in self.gradient_of.items() if number == wanted] for wanted in range(len(own))]
        self.layout = FlatLayout.from_params(
            model.trainables().items(), groups_of_loops(self.loops.values(), self.groups), summed)
        self.surgery.betas(len(summed))
        self.watch = GradientWatch(self.layout, rarely_reached)
        self.agreement = GradientAgreement(self.layout) if self.logs_agreement else None
        self.gradients = [self.layout.new_buffer(self.device) for _ in summed]
        titled = {loop_title(name): loader for name, loader in loaders.items()}
        this_run = describe_run(runner.cfg, runner.seed, titled, self.accumulative_counts, model.base.fingerprint)
        if path := resumed_from(runner):
            previous = runner.message_hub.runtime_info.get('run')
            check_same_run(path, previous, this_run)
            if changes := changed_settings(previous, this_run):
                print_log('\n'.join(['resumed with other settings than before:', *changes]), 'current', logging.WARNING)
        runner.message_hub.update_info('run', this_run)
        check_shared_memory(list(self.awaited_loaders(nullcontext).values()))
        barrier()  # before any rank takes what another one has not counted yet
        sources = {title: loader.dataset for title, loader in titled.items()}
        print_log(f'what an epoch of each loop is made of:\n{source_table(sources)}', 'current')

    def train(self, loaders: Mapping[str, AwaitedLoader]) -> None:
        """All steps and hooks."""
        runner = self.runner
        if runner.val_loop is not None:
            runner.val_loop.dataloader = loaders['val']
            runner.register_hook(StopInValidation(self.stop, self.device))
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        position = self._iter * self.accumulative_counts
        batches = {loop: endless_batches(loaders[loop], position) for loop in self.loops}
        while self._iter < self._max_iters and not self.stop_training:
            self.validate_if_due()
            runner.model.train()
            self.run_step(batches)
        self.validate_if_due()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')

    @property
    def raw_model(self) -> torch.nn.Module:
        return unwrapped(self.runner.model)

    @property
    def wrapped_model(self) -> torch.nn.Module:
        """What synchronises gradients: DDP or DeepSpeed's engine; the model itself in a single process."""
        model = self.runner.model
        return model if callable(model) else model.model  # mmengine's handle of the engine cannot be called

    def validate_if_due(self) -> None:
        """Validate between two steps, once, so that the state is whole if validation is interrupted."""
        info = self.runner.message_hub.runtime_info
        due = self.val_interval and self._iter > 0 and self._iter % self.val_interval == 0
        if due and info.get('validated') != self._iter:
            self.runner.val_loop.run()
            self.runner.message_hub.update_info('validated', self._iter)

    def run_step(self, batches: Mapping[str, Iterator]) -> None:
        """One optimizer step: all loops, surgery, update, hooks."""
        seconds = Stopwatch()
        outputs: dict[str, float] = {}
        data: dict[str, list] = {}
        self.preview = None
        finite_here: dict[str, Sequence[torch.Tensor]] = {}
        with self.stop.noting():
            with seconds('data'):
                for name, iterator in batches.items():
                    data[name] = [next(iterator) for _ in range(self.accumulative_counts)]
            self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data)
            for name, loop in self.loops.items():
                with seconds(name):
                    outputs |= self.loop_gradient(loop, data[name])
                    finite_here[name] = self.gradients[self.gradient_of[name]].aminmax()
        with seconds('wait'):
            self.stop.raise_if_agreed(self.device)
        with seconds('surgery'):
            for buffer in self.gradients:
                all_reduce_mean_(buffer)
            self.watch.look(self.gradients, any(map(any, self.runner.optim_wrapper.get_lr().values())))
            if self.agreement is not None:
                outputs |= self.agreement.look(self.gradients)
            combined, stats = self.surgery.combine(self.gradients, self.layout, out=self.gradients[0])
        with seconds('optimizer'):
            if stats.finite:
                self.skipped_in_a_row = 0
                surrogate = self.wrapped_model(None, (self.parameters, self.layout.split(combined)), mode='surrogate')
                self.runner.optim_wrapper.update_params(surrogate)
            else:
                self.skip(finite_here, data)
        # The EMA follows only steps that really happened.
        self.runner.message_hub.update_info('stepped', stats.finite)
        for figure in [figure for figure in outputs if '/seconds_' in figure]:
            name, _, phase = figure.partition('/seconds_')
            spent = outputs.pop(figure) * self.accumulative_counts
            seconds.phases[phase] = seconds.phases.get(phase, 0.0) + spent
            seconds.phases[name] -= spent
        outputs |= stats.scalars()
        outputs |= {f'seconds/{phase}': value for phase, value in seconds.phases.items()}
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data, outputs=outputs)
        self._iter += 1

    def loop_gradient(self, loop: Loop, batches: list) -> dict[str, float]:
        """Add the mean gradient of one loop over its micro-batches to the gradient that it is a part of.

        Returns:
            The loop's figures, averaged over the micro-batches, as ``loop1/mask`` and so on.
        """
        model, buffer = self.raw_model, self.gradients[self.gradient_of[loop.name]]
        if loop.joins is None:
            buffer.zero_()
        if self._iter < loop.first_step:
            return {}
        marked = self.layout.first_reached(loop.name)
        figures: dict[str, list[float]] = {}
        show = self.preview_interval and (
            (self._iter + 1) % self.preview_interval == 0 or self._iter in (0, self._max_iters - 1))
        batches = [model.data_preprocessor(batch, training=True)['data'] for batch in batches]
        prepared = loop.prepare(model, batches, self._iter, self.stop.poll)
        for micro, data in enumerate(batches):
            self.stop.poll()
            # Dropout is the only user of the global generator; keyed so, a resumed run draws the same.
            torch.manual_seed(seed_for(model.base.seed, 'dropout', self._iter, micro, loop.key, get_rank()))
            options = dict(step=self._iter, preview=bool(show) and self.preview is None, poll=self.stop.poll)
            if prepared:
                options['prepared'] = prepared[micro]
            output = model(data, options, mode=loop.name)
            grads = torch.autograd.grad(output['loss'], self.parameters, allow_unused=True)
            self.layout.accumulate_(buffer, grads, 1 / len(batches), loop.name)
            output['loss'] = output['loss'].detach()
            # 0, or NaN for a loss that is not finite: its gradient may be finite all the same.
            buffer[marked] += output['loss'] * 0
            if preview := output.pop('preview', None):
                self.preview = dict(preview, data=data)
            for name, value in as_numbers(output).items():
                figures.setdefault(f'{loop.name}/{name}', []).append(value)
        return {name: sum(values) / len(values) for name, values in figures.items()}

    def skip(self, extremes: Mapping[str, Sequence[torch.Tensor]], data: Mapping[str, list]) -> None:
        """Leave out a step whose gradient is not finite; abort after too many in a row.

        Args:
            extremes: smallest and largest element of this rank's own gradient after each loop.
            data: this rank's batches of each loop.
        """
        self.skipped_in_a_row += 1
        mine, spoilt = {}, set()
        for loop, ends in extremes.items():
            # A loop that joins a gradient that was spoilt before it is not the guilty one.
            if not all(end.isfinite() for end in ends) and self.gradient_of[loop] not in spoilt:
                spoilt.add(self.gradient_of[loop])
                mine[loop] = list(chain.from_iterable(batch['sample_ids'] for batch in data[loop]))
        for rank, guilty in enumerate(all_gather_object(mine)):
            for loop, samples in guilty.items():
                print_log(f'step {self._iter + 1} is skipped: loss or gradient of {loop_title(loop)} is not finite on '
                          f'rank {rank}; samples {", ".join(samples)}', 'current', logging.WARNING)
        if self.skipped_in_a_row >= self.max_skipped_steps:
            raise NonFiniteGradients(f'{self.skipped_in_a_row} steps in a row had no finite gradient; lower the '
                                     'learning rate or look at the samples named above')


class StopInValidation(Hook):
    """Lets SIGTERM end a validation between two batches, on all ranks at the same one."""

    def __init__(self, stop: StopSignal, device: torch.device):
        self.stop, self.device = stop, device

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.stop.raise_if_agreed(self.device)
