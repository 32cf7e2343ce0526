"""Loop 2 and the supervised stream; surgery keeps the gradient of the latter whole."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'] = [dict(supervised, joins=None), loop2]
train_dataloader = captioned_loader
train_cfg['loop_dataloaders'] = dict(loop2=captions_loader)
