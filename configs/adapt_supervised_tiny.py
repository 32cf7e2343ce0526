"""What the quickstart is held against: the captions with masks alone, in the same time.

    dual-loop train configs/adapt_supervised_tiny.py
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .adapt_tiny import *

model['loops'] = [dict(type=SupervisedLoop, joins=None)]
train_dataloader = supervised_dataloader
train_cfg['loop2_dataloader'] = None
train_cfg['loop_dataloaders'] = {}
train_cfg['max_steps'] = 400
param_scheduler[1]['end'] = 400
custom_hooks[-1] = dict(type=ReportHook)
