"""Both loops, rows of loop 1 filtered by the teacher's own cycle."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'][0].update(min_cycle_iou=0.7)
