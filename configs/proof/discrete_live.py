"""As discrete; the student itself is the teacher."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

model['teacher'] = 'live'
