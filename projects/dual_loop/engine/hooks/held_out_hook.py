"""Measures masks on held-out expressions before and after training."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from dual_loop.evaluation import ReferringMetric


@HOOKS.register_module()
class HeldOutHook(Hook):
    """Run the validation loop at the beginning and at the end of a run and keep its two results.

    The figures go to the message hub as ``held_out_before`` and ``held_out_after``, and with it into checkpoints: a
    resumed run takes the first from there. Without ``val_dataloader``, ``val_cfg`` and ``val_evaluator`` in the config
    the hook does nothing. A train loop that validates by itself after the last step is not asked again.
    """

    # Before the report, which shows the figures.
    priority = 'LOW'

    def __init__(self):
        #: Step and figures of the latest validation.
        self._latest: tuple[int, dict[str, float]] | None = None

    def before_train(self, runner) -> None:
        self._latest = None
        if runner.val_loop is None or 'held_out_before' in runner.message_hub.runtime_info:
            return
        if runner.iter > 0:
            print_log(f'the checkpoint of step {runner.iter} has no held-out figures from before training, so the '
                      'report will not compare', 'current', logging.WARNING)
            return
        runner.val_loop.run()
        self._keep(runner, 'before')

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        self._latest = runner.iter, metrics

    def after_train(self, runner) -> None:
        if runner.val_loop is None:
            return
        if self._latest is None or self._latest[0] != runner.iter:
            runner.val_loop.run()
        self._keep(runner, 'after')

    def _keep(self, runner, moment: str) -> None:
        prefix = f'{ReferringMetric.default_prefix}/'
        figures = {name.removeprefix(prefix): value for name, value in self._latest[1].items()}
        runner.message_hub.update_info(f'held_out_{moment}', figures)
