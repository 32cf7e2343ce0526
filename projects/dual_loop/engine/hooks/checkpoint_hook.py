"""Saves the run every so many steps, whole or not at all, and deletes old checkpoints only afterwards."""

from collections import ChainMap
from contextlib import suppress
from pathlib import Path

from mmengine.dist import all_gather_object, barrier, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import FlexibleRunner

from dual_loop.checkpoints.files import PARTIAL, Trained, publish, remove, write_plain_parts
from dual_loop.checkpoints.integrity import sums_of_engine_parts
from dual_loop.engine.masters import master_weights
from dual_loop.engine.ownership import check_owned
from dual_loop.engine.resume import resumed_from
from dual_loop.engine.unwrapped import unwrapped
from llava_sam2.paths import writing


@HOOKS.register_module()
class AtomicCheckpointHook(Hook):
    """Write ``work_dir/iter_N.pth`` under another name, bring it to the disk, rename it, then delete old ones.

    Args:
        interval: steps between two checkpoints; the last step is always saved.
        save_total_limit: checkpoints of this run to keep, the latest ones; None keeps all.

    Raises:
        ValueError: an argument is below 1.
    """

    # After every hook that changes what is saved: the average, the schedule, the log.
    priority = 'VERY_LOW'

    def __init__(self, interval: int = 1000, save_total_limit: int | None = None):
        if interval < 1 or (save_total_limit is not None and save_total_limit < 1):
            raise ValueError(f'interval and save_total_limit must be at least 1, got {interval}, {save_total_limit}')
        self.interval = interval
        self.save_total_limit = save_total_limit
        self.saved_step: int | None = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # The loop counts the step after its hooks.
        if (runner.iter + 1) % self.interval == 0 or runner.iter + 1 == runner.max_iters:
            self.save(runner, runner.iter + 1)

    def save_now(self, runner) -> None:
        """Save the state after the last finished step, unless that is on the disk already."""
        source = resumed_from(runner)
        resumed_here = source is not None and source.resolve() == _path(runner, runner.iter).resolve()
        if self.saved_step != runner.iter and not resumed_here:
            self.save(runner, runner.iter)

    def save(self, runner, step: int) -> None:
        """Save the state after ``step`` steps. All ranks must call it."""
        final = _path(runner, step)
        partial = final.with_name(final.name + PARTIAL)
        names = [name for name in runner.message_hub.runtime_info.get('checkpoints', []) if name != final.name]
        names.append(final.name)
        first_kept = max(0, len(names) - self.save_total_limit) if self.save_total_limit else 0
        runner.message_hub.update_info('checkpoints', names[first_kept:])
        before = f'the latest checkpoint there is {names[-2]}' if len(names) > 1 else 'nothing was saved before'
        with writing(f'the checkpoint of step {step}', final.parent,
                     f'Make room there and go on with --resume; {before}'):
            try:
                self._write(runner, partial, step)
                barrier()  # until all ranks have written their parts
                if is_main_process():
                    check_owned(runner.work_dir)
                    publish(partial, final)
            except BaseException:
                if is_main_process():
                    with suppress(OSError):  # the first error is the one to tell
                        remove(partial)
                raise
        if is_main_process():
            for name in names[:first_kept]:
                remove(final.with_name(name))
        barrier()  # no rank ends the run, and with it the others, before the name is there
        self.saved_step = step
        print_log(f'saved {final}', 'current')

    def _write(self, runner, partial: Path, step: int) -> None:
        """The part of this process."""
        if is_main_process():
            check_owned(runner.work_dir)
            remove(partial)  # of a run that was killed while it saved
        barrier()
        # by_epoch is mmengine's only way to say whether runner.iter counts this step already.
        runner.save_checkpoint(str(partial.parent), partial.name, by_epoch=step == runner.iter)
        if isinstance(runner, FlexibleRunner):
            self._add_plain_parts(runner, partial, step)

    def _add_plain_parts(self, runner, folder: Path, step: int) -> None:
        """Beside DeepSpeed's files, which need DeepSpeed and its unpickling, the tensors in a plain form."""
        model = unwrapped(runner.model)
        trained = Trained(step, {}, {}, 0, runner.message_hub.runtime_info.get('run', {}))
        for name, value in master_weights(model.trainables().items()):
            if is_main_process():
                trained.trainables[name] = value.cpu()
        average: dict = {}
        runner.call_hook('before_save_checkpoint', checkpoint=average)
        if 'ema' in average:
            trained.ema, trained.ema_updates = average['ema']['values'], average['ema']['num_updates']
        sums = all_gather_object(sums_of_engine_parts(folder, get_rank()))
        if is_main_process():
            write_plain_parts(folder, trained, dict(ChainMap(*sums)))


def _path(runner, step: int) -> Path:
    return Path(runner.work_dir) / f'iter_{step}.pth'
