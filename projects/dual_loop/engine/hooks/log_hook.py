"""The stock log, in which a validation is a progress bar and its figures, not a line for every few batches."""

from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS

from llava_sam2.progress import Progress


@HOOKS.register_module()
class LogHook(LoggerHook):
    """:class:`mmengine.hooks.LoggerHook` with a bar on rank 0 while the model is validated; arguments are the same."""

    _progress: Progress | None = None

    def before_val_epoch(self, runner) -> None:
        self._progress = Progress(len(runner.val_dataloader), 'validation', 'batches', shown=runner.rank == 0)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self._progress is not None:
            self._progress.update()

    def after_val_epoch(self, runner, metrics=None) -> None:
        if self._progress is not None:
            self._progress.close()
        super().after_val_epoch(runner, metrics)
