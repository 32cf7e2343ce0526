"""Loop 1 and the supervised stream."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'] = [loop1, supervised]
train_cfg['loop_dataloaders'] = dict(supervised=captioned_loader)
