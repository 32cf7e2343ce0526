"""A validation is a bar and one line of figures."""

import logging
from functools import partial
from types import SimpleNamespace

import pytest

from dual_loop.engine.hooks import LogHook, log_hook
from llava_sam2.progress import Progress


@pytest.mark.parametrize('rank', [0, 1])
def test_batches_are_counted_and_figures_logged_once(monkeypatch, capsys, rank):
    ticks = iter(range(0, 100_000, 40))
    monkeypatch.setattr(log_hook, 'Progress', partial(Progress, clock=lambda: float(next(ticks))))
    logged, scalars = [], []
    logger = logging.Logger('run')
    logger.info = logged.append
    runner = SimpleNamespace(
        val_dataloader=range(3), rank=rank, logger=logger, iter=7, _train_loop=object(),
        log_processor=SimpleNamespace(get_log_after_epoch=lambda *args: (dict(iou=1.0), 'the figures')),
        visualizer=SimpleNamespace(add_scalars=lambda tag, step, file_path: scalars.append((tag, step))))
    hook = LogHook(interval=1, log_metric_by_epoch=False)
    hook.json_log_path = 'log.json'
    hook.before_val_epoch(runner)
    for batch in range(3):
        hook.after_val_iter(runner, batch)
    hook.after_val_epoch(runner)
    assert logged == ['the figures'] and scalars == [(dict(iou=1.0), 7)]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(' batches')[0] for line in lines] == [] if rank else [
        'validation: 33%, 1 of 3', 'validation: 67%, 2 of 3', 'validation: 100%, 3 of 3', 'validation: 3']
