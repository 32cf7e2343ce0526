"""Both loops, and a reward for captions by which a frozen listener finds the object."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'][0].update(reward_weight=0.1)
