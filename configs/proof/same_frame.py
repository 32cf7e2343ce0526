"""Both loops, the object is found again in the frame of its description."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

train_dataloader['dataset']['datasets'] = [dict(masks_b['datasets'][0], pairs=False), *masks_b['datasets'][1:]]
