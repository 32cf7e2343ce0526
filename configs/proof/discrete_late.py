"""As discrete; loop 1 begins when the other two have taught the teacher words."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

model['loops'][0].update(first_step=300)
