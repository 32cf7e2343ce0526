"""The captioned scenes alone: what both loops have to beat."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'] = [dict(supervised, joins=None)]
train_dataloader = captioned_loader
train_cfg['loop_dataloaders'] = {}
