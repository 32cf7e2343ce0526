"""Signals that reach a process of a run at a chosen place, as a cluster sends them at any."""

import os
import resource
import signal
import threading
import time
from unittest import mock

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

#: Where the signal arrives.
PLACES = ('passes', 'decoding', 'update', 'validation', 'cycle', 'writing', 'deleting')


@HOOKS.register_module()
class SignalAt(Hook):
    """Send ``signal`` to the process of ``rank`` in the step with index ``step``.

    Args:
        name: TERM or KILL.
        place: one of :data:`PLACES`. ``passes`` is loop 2, ``decoding`` the third token of the teacher, ``update`` the
            optimizer's step, ``validation`` the first batch of it, ``cycle`` the first description of CycleHook,
            ``writing`` a checkpoint that is written but has not got its name, ``deleting`` one that has, before old
            ones go.
        step: index of the step; for the last four the number of steps taken.
        rank: of the process.
    """

    # Before the hook that saves.
    priority = 'LOW'

    def __init__(self, name: str, place: str, step: int, rank: int = 0):
        assert place in PLACES
        self.number, self.place, self.step, self.rank = getattr(signal, f'SIG{name}'), place, step, rank
    def send(self) -> None:
        os.kill(os.getpid(), self.number)

    def before_train(self, runner) -> None:
        if get_rank() != self.rank:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model

        def before(owner, name: str, when) -> None:
            original = getattr(owner, name)

            def sending(*args, **kwargs):
                if when(*args, **kwargs):
                    self.send()
                return original(*args, **kwargs)

            mock.patch.object(owner, name, sending).start()

        if self.place == 'passes':
            before(model.loops['loop2'], 'forward', lambda *_, step, **__: step == self.step)
        elif self.place == 'update':
            before(runner.optim_wrapper, 'update_params', lambda *_: runner.iter == self.step)
        elif self.place == 'decoding':
            calls = iter(range(10**6))
            poll = runner.train_loop.stop
            before(poll, 'poll', lambda: self._decoding and next(calls) == 2)
            self._watch(model.teacher, runner)
        elif self.place == 'cycle':
            from dual_loop.engine.hooks import cycle_hook

            before(cycle_hook, 'describe', lambda *_: runner.iter == self.step)
        elif self.place in ('writing', 'deleting'):
            from dual_loop.engine.hooks import checkpoint_hook

            name = dict(writing='publish', deleting='remove')[self.place]
            before(checkpoint_hook, name, lambda path, *_: (
                path.name.startswith(f'iter_{self.step}.') if name == 'publish' else
                runner.iter + 1 == self.step and not path.name.endswith('.partial')))

    _decoding = False

    def _watch(self, teacher, runner) -> None:
        describe = teacher.describe

        def watched(*args, **kwargs):
            self._decoding = runner.iter == self.step
            try:
                return describe(*args, **kwargs)
            finally:
                self._decoding = False

        mock.patch.object(teacher, 'describe', watched).start()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        here = self.place == 'validation' and get_rank() == self.rank
        if here and runner.iter == self.step and batch_idx == 0:
            self.send()


def misbehave(action: str | None, ask: str | None) -> None:
    """What reading a sample may run into.

    Args:
        action: ``sleep`` for good; ``stop`` or ``kill`` the process that reads; ``lose`` the batch, for which there is
            no room in shared memory.
        ask: TERM or INT, sent to the process of the run later, when it waits for the sample.
    """
    print(f'a sample is read: it will {action}', flush=True)
    if ask is not None:
        run = os.getppid() if torch.utils.data.get_worker_info() else os.getpid()
        threading.Timer(2.0, os.kill, (run, getattr(signal, f'SIG{ask}'))).start()
    if action == 'sleep':
        time.sleep(600)
    elif action in ('stop', 'kill'):
        os.kill(os.getpid(), dict(stop=signal.SIGSTOP, kill=signal.SIGKILL)[action])
    elif action == 'lose':
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def lift_faults() -> None:
    """Take the patches back; the process goes on with other cases."""
    mock.patch.stopall()
