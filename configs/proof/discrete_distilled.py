"""As discrete; the mask is drawn towards the teacher's too."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

model['loops'][0].update(distill_weight=0.5)
