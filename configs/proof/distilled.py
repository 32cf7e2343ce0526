"""Both loops, and the student's mask follows the teacher's."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'][0].update(distill_weight=0.5)
