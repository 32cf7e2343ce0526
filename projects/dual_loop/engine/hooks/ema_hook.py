"""Keeps the teacher: an fp32 average of the student's trainables, followed once per optimizer step."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from dual_loop.engine.ema import ExponentialMovingAverage


@HOOKS.register_module()
class TeacherEMAHook(Hook):
    """Own the average, write the teacher's working copy, save and restore it with the checkpoint.

    Args:
        decay: largest decay; it starts lower, see :class:`ExponentialMovingAverage`.
    """

    # After the optimizer step, before LoggerHook reads the scalars and CheckpointHook saves.
    priority = 'NORMAL'

    def __init__(self, decay: float = 0.999):
        self.decay = decay
        self.ema: ExponentialMovingAverage | None = None
        self._restored: dict | None = None

    def before_train(self, runner) -> None:
        base = _raw(runner.model).base
        self.ema = ExponentialMovingAverage(base.trainables().items(), self.decay)
        if self._restored is not None:
            self.ema.load_state_dict(self._restored)
            self._restored = None
        self._write_teacher(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        base = _raw(runner.model).base
        if runner.message_hub.get_info('stepped'):
            self.ema.update(base.trainables().items())
            self._write_teacher(runner)
        runner.message_hub.update_scalar('train/teacher_distance', self.ema.distance(base.trainables().items()))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['ema'] = self.ema.state_dict()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._restored = checkpoint.get('ema')

    def _write_teacher(self, runner) -> None:
        _raw(runner.model).teacher.set_values(self.ema.values)


def _raw(model):
    return model.module if is_model_wrapper(model) else model
