"""The training loop: one iteration is one optimizer step over both loops."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from dual_loop.datasets.quarantine import set_work_dir
from llava_sam2.randomness import seed_for

from .config_check import check_config_keys
from .flat import DEFAULT_GROUPS, FlatLayout, all_reduce_mean_
from .surgery import GradientSurgery


class NonFiniteGradients(RuntimeError):
    """Too many optimizer steps in a row had a loss or gradient that is not finite."""


@LOOPS.register_module()
class DualLoopTrainLoop(BaseLoop):
    """Accumulate the gradients of loop 1 and of loop 2, combine them by surgery, clip, step.

    The losses run on the raw module and their gradients are averaged over ranks here; the combined gradient reaches
    the optimizer as the gradient of a surrogate loss through the wrapped model (reference/engine.md, section 3).

    Args:
        runner: the mmengine runner.
        dataloader: of loop 1.
        loop2_dataloader: of loop 2.
        max_steps: optimizer steps.
        accumulative_counts: micro-batches of each loop per optimizer step.
        surgery: arguments of :class:`GradientSurgery`.
        groups: parameter groups and the loops that reach them, see :data:`flat.DEFAULT_GROUPS`.
        preview_interval: every so many steps, the first and the last included, loop 1 keeps what the pictures need.
        max_skipped_steps: abort after so many steps in a row without a finite gradient.
    """

    def __init__(
        self,
        runner,
        dataloader: DataLoader | dict,
        loop2_dataloader: DataLoader | dict,
        max_steps: int,
        accumulative_counts: int = 1,
        surgery: Mapping | None = None,
        groups: Mapping[str, Mapping] = DEFAULT_GROUPS,
        preview_interval: int = 50,
        max_skipped_steps: int = 10,
    ):
        check_config_keys(runner.cfg)
        if max_steps < 1 or accumulative_counts < 1:
            raise ValueError(f'max_steps and accumulative_counts must be at least 1, got {max_steps}, '
                             f'{accumulative_counts}')
        super().__init__(runner, dataloader)
        if isinstance(loop2_dataloader, dict):
            loop2_dataloader = runner.build_dataloader(loop2_dataloader, seed=runner.seed)
        self.dataloaders = {1: self.dataloader, 2: loop2_dataloader}
        for loader in self.dataloaders.values():
            set_work_dir(loader.dataset, runner.work_dir)
        self._max_iters = max_steps
        self._iter = 0
        self.accumulative_counts = accumulative_counts
        self.surgery = GradientSurgery(**(surgery or {}))
        self.groups = groups
        self.preview_interval = preview_interval
        self.max_skipped_steps = max_skipped_steps
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

    def run(self) -> torch.nn.Module:
        """Train from the current step to ``max_steps``."""
        if getattr(self.runner.optim_wrapper, 'clip_grad_kwargs', None):  # DeepSpeed's wrapper has none
            raise ValueError('optim_wrapper.clip_grad must be absent: the loop clips after combining, set '
                             'train_cfg.surgery.max_grad_norm instead')
        model = self.raw_model
        model.base.check_token_rows()
        self.parameters = list(model.trainables().values())
        self.layout = FlatLayout.from_params(model.trainables().items(), self.groups)
        device = self.parameters[0].device
        self.gradients = {loop: self.layout.new_buffer(device) for loop in (1, 2)}
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        iterators = {loop: cycle(loader) for loop, loader in self.dataloaders.items()}
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_step(iterators)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    @property
    def raw_model(self) -> torch.nn.Module:
        model = self.runner.model
        return model.module if is_model_wrapper(model) else model

    def run_step(self, iterators: Mapping[int, Iterator]) -> None:
        """One optimizer step: both loops, surgery, update, hooks."""
        seconds = Stopwatch()
        with seconds('data'):
            batches = {loop: [next(it) for _ in range(self.accumulative_counts)] for loop, it in iterators.items()}
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batches)
        outputs: dict[str, float] = {}
        for loop in (1, 2):
            with seconds(f'loop{loop}'):
                outputs |= self.loop_gradient(loop, batches[loop])
        with seconds('surgery'):
            for buffer in self.gradients.values():
                all_reduce_mean_(buffer)
            combined, stats = self.surgery.combine(*self.gradients.values(), self.layout, out=self.gradients[1])
        with seconds('optimizer'):
            if stats.finite:
                self.skipped_in_a_row = 0
                surrogate = self.runner.model(None, self.layout.split(combined), mode='surrogate')
                self.runner.optim_wrapper.update_params(surrogate)
            else:
                self.skip(stats, batches)
        # The EMA follows only steps that really happened.
        self.runner.message_hub.update_info('stepped', stats.finite)
        if teacher := outputs.pop('loop1/seconds_teacher', None):
            seconds.phases['loop1'] -= teacher * self.accumulative_counts
            seconds.phases['teacher'] = teacher * self.accumulative_counts
        outputs |= stats.scalars()
        outputs |= {f'seconds/{phase}': value for phase, value in seconds.phases.items()}
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=batches, outputs=outputs)
        self._iter += 1

    def loop_gradient(self, loop: int, batches: list) -> dict[str, float]:
        """Accumulate the mean gradient of one loop over its micro-batches in ``self.gradients[loop]``.

        Returns:
            The loop's figures, averaged over the micro-batches, as ``loop1/mask`` and so on.
        """
        model = self.raw_model
        self.gradients[loop].zero_()
        figures: dict[str, list[float]] = {}
        show = loop == 1 and self.preview_interval and (
            (self._iter + 1) % self.preview_interval == 0 or self._iter in (0, self._max_iters - 1)
        )
        if loop == 1:
            self.preview = None
        for micro, batch in enumerate(batches):
            # Dropout is the only user of the global generator; keyed so, a resumed run draws the same.
            torch.manual_seed(seed_for(model.base.seed, 'dropout', self._iter, micro, loop, get_rank()))
            data = model.data_preprocessor(batch, training=True)['data']
            output = model(data, dict(step=self._iter, preview=bool(show and micro == 0)), mode=f'loop{loop}')
            grads = torch.autograd.grad(output['loss'], self.parameters, allow_unused=True)
            self.layout.accumulate_(self.gradients[loop], grads, 1 / len(batches), loop)
            output['loss'] = output['loss'].detach()
            if preview := output.pop('preview', None):
                self.preview = dict(preview, data=data)
            for name, value in output.items():
                figures.setdefault(f'loop{loop}/{name}', []).append(float(value))
        return {name: sum(values) / len(values) for name, values in figures.items()}

    def skip(self, stats, batches: Mapping[int, list]) -> None:
        """Leave out a step whose gradient is not finite; abort after too many in a row."""
        self.skipped_in_a_row += 1
        for loop, finite in ((1, stats.finite1), (2, stats.finite2)):
            if not finite:
                samples = [sample for batch in batches[loop] for sample in batch['sample_ids']]
                print_log(f'step {self._iter + 1} is skipped: the gradient of loop {loop} is not finite; samples '
                          f'{", ".join(samples)}', 'current', logging.WARNING)
        if self.skipped_in_a_row >= self.max_skipped_steps:
            raise NonFiniteGradients(f'{self.skipped_in_a_row} steps in a row had no finite gradient; lower the '
                                     'learning rate or look at the samples named above')


def cycle(dataloader: DataLoader) -> Iterator:
    """Batches without end; the sampler is told the epoch, so that each epoch has its own order."""
    epoch = 0
    while True:
        for sampler in (dataloader.sampler, getattr(dataloader.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        yield from dataloader
        epoch += 1


class Stopwatch:
    """Seconds per named phase of a step."""

    def __init__(self):
        self.phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - started
