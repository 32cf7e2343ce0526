"""As discrete; four objects of a picture side by side in loop 1."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

train_dataloader['dataset']['datasets'] = [dict(each, num_objects=4) for each in masks_b['datasets']]
train_dataloader.update(batch_size=4)
