"""The page on own parts: its code trains from a folder outside the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TWO_STEPS = ['train_cfg.max_steps=2', 'train_cfg.preview_interval=0', 'param_scheduler.0.end=1',
             'param_scheduler.1.begin=1', 'param_scheduler.1.end=2', 'default_hooks.checkpoint.interval=2',
             'default_hooks.logger.interval=1', 'log_processor.window_size=1',
             *(f'{loader}.{option}' for option in ('num_workers=0', 'persistent_workers=False', 'batch_size=4')
               for loader in ('train_dataloader', 'train_cfg.loop2_dataloader', 'train_cfg.loop_dataloaders.{third}'))]


def train(checkout: Path, config: Path, third: str, *options: str) -> tuple[str, list[dict]]:
    """The log, and what was logged of each step."""
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', config, '--work-dir', config.parent / 'work', '--cfg-options',
         *(option.format(third=third) for option in TWO_STEPS), *options],
        cwd=config.parent, capture_output=True, text=True,
        env=os.environ | dict(PYTHONPATH=f'{checkout / "projects"}:{config.parents[1]}'))
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    [scalars] = (config.parent / 'work').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    return log, [record for record in records if 'loop1/loss' in record]


#: Nothing is measured before and after, which would take most of the time.
SILENT = '\ncustom_hooks = [custom_hooks[0], custom_hooks[-1]]  # TeacherEMAHook, ReportHook\n'
UNMEASURED = 'val_dataloader = val_cfg = val_evaluator = None\n'


def test_own_parts_train_outside_the_project(code_blocks, checkout, tmp_path):
    sections = code_blocks('extending.md')
    parts = [text for heading in ('A loop', 'A bridge', 'A teacher', 'A mask loss', 'A surgery rule')
             for _, text in sections[heading]]
    (tmp_path / 'my_parts.py').write_text('\n\n'.join(parts))
    shutil.copytree(checkout / 'configs', tmp_path / 'configs')
    [(_, config)] = sections['In a config']
    (tmp_path / 'configs/my_run.py').write_text(config + SILENT + UNMEASURED)
    log, steps = train(checkout, tmp_path / 'configs/my_run.py', 'mirror')
    assert [step['step'] for step in steps] == [1, 2]
    for step in steps:
        assert step['mirror/mask'] > 0 and step['mirror/loss'] == pytest.approx(
            0.5 * (step['mirror/mask'] + step['mirror/dice']), rel=1e-5)
        assert step['loop1/bridge_agreement'] == 1 and step['loop1/bridge_entropy'] == 0  # the own bridge's
        # Over what all three reach.
        agrees = [sum(step[f'cosine{pair}/{group}'] * step[f'grad_norm1/{group}'] * step[f'grad_norm{other}/{group}']
                      for group in ('lora', 'projector')) >= 0 for pair, other in (('', 2), ('13', 3))]
        assert [step['w1'], step['w2'], step['w3']] == [1, 1.0 * agrees[0], 0.5 * agrees[1]]
    assert '| mirror: mask' in log and 'mirror/loss' in (tmp_path / 'configs/work/report.html').read_text()
    # The copy of the config in the work_dir trains as well.
    assert "type='my_parts.MirrorLoop'" in (tmp_path / 'configs/work/my_run.py').read_text()


def test_the_supervised_stream_beside_the_loops(checkout, tmp_path):
    shutil.copytree(checkout / 'configs', tmp_path / 'configs')
    with open(tmp_path / 'configs/adapt_tiny.py', 'a') as config:
        config.write(SILENT + UNMEASURED)
    log, steps = train(checkout, tmp_path / 'configs/adapt_tiny.py', 'supervised')
    for step in steps:
        parts = [step[f'supervised/{part}'] for part in ('mask', 'dice', 'answer', 'caption')]
        assert step['supervised/loss'] == pytest.approx(sum(parts), rel=1e-5)
        assert 'cosine' in step and 'cosine13' not in step
    assert '| supervised: mask' in log
