"""Measures masks on held-out expressions before and after training."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from dual_loop.evaluation.referring import evaluate_referring


@HOOKS.register_module()
class HeldOutHook(Hook):
    """Evaluate referring segmentation on held-out data at the beginning and at the end of a run.

    The figures go to the message hub as ``held_out_before`` and ``held_out_after``.

    Args:
        dataloader: of held-out samples with captions.
    """

    # Before the report, which shows the figures.
    priority = 'LOW'

    def __init__(self, dataloader: dict):
        self.dataloader = dataloader

    def before_train(self, runner) -> None:
        self.dataloader = runner.build_dataloader(self.dataloader, seed=runner.seed)
        self._evaluate(runner, 'before')

    def after_train(self, runner) -> None:
        self._evaluate(runner, 'after')

    def _evaluate(self, runner, moment: str) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        figures = evaluate_referring(model, self.dataloader)
        runner.message_hub.update_info(f'held_out_{moment}', figures)
        shown = ', '.join(f'{name} {value:.3f}' for name, value in figures.items())
        print_log(f'held-out masks {moment} training: {shown}', 'current')
        for name, value in figures.items():
            runner.visualizer.add_scalar(f'held_out/{name}', value, step=runner.iter)
