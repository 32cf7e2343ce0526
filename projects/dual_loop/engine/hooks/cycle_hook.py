"""Cycle consistency while a model is trained."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from dual_loop.datasets import GroundedDataset
from dual_loop.datasets.from_config import build_dataset
from dual_loop.engine.unwrapped import unwrapped
from dual_loop.evaluation.caption_scores import score_captions
from dual_loop.evaluation.cycle import caption_metrics, cycle_metrics, describe, find
from dual_loop.evaluation.cycle_probe import Probe, ProbeBatch
from dual_loop.evaluation.predictor import Predictor

WEIGHTS = ('student', 'teacher')


@HOOKS.register_module()
class CycleHook(Hook):
    """Every some steps, the first and the last included, describe a few fixed objects and find them again.

    It shows early what loss curves do not: descriptions that are a code of their own, or a decoder that ignores them
    (see ``evaluation.cycle``). In a config, with the data sets that it reads::

        custom_hooks += [dict(type=CycleHook, interval=100, num_samples=32, datasets=[sav, refcoco_val])]

    Figures, in the message hub and in what the visualizer writes: ``cycle/<condition>_iou``, mean IoU in the picture of
    the description, ``cycle/<condition>_paired_iou`` in the other frame, ``cycle/no_seg_rate`` of the generated
    descriptions, ``cycle/cider`` of those of objects that have a human sentence, against one sentence each
    (comparable within a run only: CIDEr depends on the objects), and those of
    :func:`~dual_loop.evaluation.cycle.caption_metrics`. Of demo data, whose truth is known, also those of
    :func:`~dual_loop.evaluation.attribute_accuracy.attribute_figures`, such as ``cycle/accuracy_shape``. Those of the
    teacher stand under ``cycle_teacher``.

    Weights, gradients and random states stay as they are, so a run with the hook ends with the weights of one without.
    The processes share the batches; figures do not depend on their number. SIGTERM ends the probe at the next token.

    Args:
        interval: in optimizer steps.
        num_samples: objects of each data set, spread evenly over it.
        datasets: data sets or their settings.
        batch_size: objects at a time.
        max_new_tokens: of a description or answer; default the model's ``max_caption_len``, or 64 if it has none.
        protocol: of finding, see ``predictor.PROTOCOLS``.
        weights: 'student', 'teacher' or both; the teacher describes and reads with the averages, the mask decoder is
            the student's.
    """

    # After the averages are there, before the report.
    priority = 'LOW'

    def __init__(self, interval: int, num_samples: int, datasets: Sequence[GroundedDataset | dict],
                 batch_size: int = 16, max_new_tokens: int | None = None, protocol: str = 'generate',
                 weights: Sequence[str] = ('student', )):
        if interval < 1 or num_samples < 1:
            raise ValueError(f'interval and num_samples of CycleHook must be at least 1, got {interval}, {num_samples}')
        if not weights or set(weights) - set(WEIGHTS):
            raise ValueError(f'weights of CycleHook must be some of {", ".join(WEIGHTS)}, got {weights!r}')
        self.interval, self.num_samples, self.datasets = interval, num_samples, datasets
        self.batch_size, self.max_new_tokens, self.protocol = batch_size, max_new_tokens, protocol
        self.weights = weights
        self._probe: Probe | None = None
        self._scores = find_spec('pycocoevalcap') is not None

    def before_train(self, runner) -> None:
        """Open the data sets.

        Raises:
            ValueError: a teacher is to be measured where none is trained, or the data sets have fewer than two objects.
        """
        model = unwrapped(runner.model)
        if 'teacher' in self.weights and not hasattr(model, 'teacher'):
            raise ValueError(f'{type(model).__name__} has no teacher: set weights of CycleHook to (\'student\', )')
        built = [each if isinstance(each, GroundedDataset) else build_dataset(each) for each in self.datasets]
        sources = {f'{number} {each.source}': each for number, each in enumerate(built) if len(each.index)}
        if not self._scores:
            print_log('pycocoevalcap is not installed: the cycle is measured without the CIDEr of descriptions',
                      'current', logging.WARNING)
        self._probe = Probe(sources, self._predictor(runner).prepare, self.batch_size, self.num_samples)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        # Before a step and not after one, when the loop has not counted it yet: here a stop finds a whole state.
        if runner.iter % self.interval == 0:
            self._measure_once(runner)

    def after_train(self, runner) -> None:
        self._measure_once(runner)

    def _measure_once(self, runner) -> None:
        """Measure unless it was done at this step, also by the run that is resumed."""
        if runner.message_hub.runtime_info.get('cycle_measured') == runner.iter:
            return
        for weights in self.weights:
            figures = self._measure(runner, weights)
            prefix = 'cycle' if weights == 'student' else 'cycle_teacher'
            figures = {f'{prefix}/{name}': value for name, value in figures.items()}
            for name, value in figures.items():
                runner.message_hub.update_scalar(name, value)
            runner.visualizer.add_scalars(figures, step=runner.iter)
            shown = ' '.join(f'{name.partition("/")[2]} {value:.3f}' for name, value in figures.items())
            print_log(f'{prefix} after step {runner.iter}: {shown}', 'current')
        runner.message_hub.update_info('cycle_measured', runner.iter)

    @staticmethod
    def _predictor(runner) -> Predictor:
        model, stop = unwrapped(runner.model), getattr(runner.train_loop, 'stop', None)
        base = getattr(model, 'base', model)
        return Predictor(base.network, base.vocabulary, stop and stop.poll)

    def _measure(self, runner, weights: str) -> dict[str, float]:
        model, predictor, probe = unwrapped(runner.model), self._predictor(runner), self._probe
        base, stop = getattr(model, 'base', model), getattr(runner.train_loop, 'stop', None)
        tokens = self.max_new_tokens or getattr(model, 'max_caption_len', None) or 64

        def answer(numbers: range, of_batch: Callable[[ProbeBatch], list[dict]]) -> list[dict]:
            """The answers of all processes to all batches, in order."""
            rank, world_size = get_dist_info()
            mine = {}
            with stop.noting() if stop else nullcontext():
                for number in numbers[rank::world_size]:
                    # A picture may hang in a disk, and what was read of it is not kept.
                    with stop.abandonable() if stop else nullcontext():
                        batch = probe[number]
                    mine[number] = of_batch(batch)
            if stop:
                stop.raise_if_agreed(base.network.device)
            found = {number: answers for part in all_gather_object(mine) for number, answers in part.items()}
            return [each for number in numbers for each in found[number]]

        with model.teacher.active() if weights == 'teacher' else evaluating(base), base.precision():
            half = probe.num_batches
            captions = answer(range(half), lambda batch: describe(predictor, batch, tokens))
            for problem in filter(None, (each['problem'] for each in captions)):
                print_log(f'left out of the cycle: {problem}', 'current', logging.WARNING)
            texts = probe.texts(captions)
            samples = answer(range(half, 2 * half), lambda batch: find(predictor, batch, texts, tokens, self.protocol))
        metrics = cycle_metrics(samples)
        figures = {f'{condition}{"_paired" * (frame == "paired")}_iou': value for (metric, condition, frame), value in
                   ((name.split('/'), value) for name, value in metrics.items()) if metric == 'giou'}
        described = [words for words in texts.values() if 'true' in words]
        if described and self._scores:
            generated, human = ([words[condition] for words in described] for condition in ('generated', 'true'))
            figures['cider'] = score_captions(generated, [[sentence] for sentence in human], 'plain').metrics['cider']
        return figures | dict(no_seg_rate=metrics['no_seg_rate/generated/same']) | caption_metrics(
            captions, base.vocabulary) | probe.attribute_figures(captions)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
