"""Keeps the teacher: an fp32 average of the student's trainables, followed once per optimizer step."""

from collections.abc import Iterator

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS

from dual_loop.checkpoints.files import read_trained
from dual_loop.engine.ema import ExponentialMovingAverage
from dual_loop.engine.masters import master_weights
from dual_loop.engine.resume import resumed_from
from dual_loop.engine.unwrapped import unwrapped


@HOOKS.register_module()
class TeacherEMAHook(Hook):
    """Own the average, write the teacher's working copy, save and restore it with the checkpoint.

    Args:
        decay: largest decay; it starts lower, see :class:`ExponentialMovingAverage`.
    """

    # After the optimizer step, before LoggerHook reads the scalars and the checkpoint is saved.
    priority = 'NORMAL'
    #: That it calls ``set_values`` of the teacher after every step, which training asks some hook to do.
    keeps_teacher = True

    def __init__(self, decay: float = 0.999):
        self.decay = decay
        self.ema: ExponentialMovingAverage | None = None
        self._restored: dict | None = None

    def before_train(self, runner) -> None:
        """Start the average at the weights, or go on with the one in the checkpoint.

        Raises:
            ValueError: the checkpoint to resume from has no average.
        """
        #: Asked for once: the whole model is searched for them.
        self.trainables = unwrapped(runner.model).trainables()
        self.ema = ExponentialMovingAverage(self._masters(), self.decay)
        path = resumed_from(runner)
        if path is not None:
            if path.is_dir():  # DeepSpeed tells no hook what it loads
                trained = read_trained(path, checked=True)  # before the model was built
                self._restored = dict(values=trained.ema, num_updates=trained.ema_updates)
            if not self._restored or not self._restored['values']:
                raise ValueError(f'{path} holds no EMA values, so its teacher cannot go on: resume a checkpoint of a '
                                 'run with TeacherEMAHook, or remove the hook from custom_hooks')
            self.ema.load_state_dict(self._restored)
            self._restored = None
        self._write_teacher(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        masters = dict(self._masters())
        if runner.message_hub.get_info('stepped'):
            self.ema.update(masters.items())
            self._write_teacher(runner)
        if any(self.every_n_train_iters(runner, interval) for interval in self._log_intervals(runner)):
            runner.message_hub.update_scalar('train/teacher_distance', self.ema.distance(masters.items()))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        state = self.ema.state_dict()
        checkpoint['ema'] = state | dict(values={name: value.cpu() for name, value in state['values'].items()})

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._restored = checkpoint.get('ema')

    @staticmethod
    def _log_intervals(runner) -> list[int]:
        """Of each hook that writes a log, the steps between two lines: the distance reads all weights."""
        return [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]

    def _write_teacher(self, runner) -> None:
        teacher = unwrapped(runner.model).teacher
        teacher.set_values({name.removeprefix('base.'): value for name, value in self.ema.values.items()})

    def _masters(self) -> Iterator[tuple[str, torch.Tensor]]:
        return master_weights(self.trainables.items())
