"""As discrete, the teacher is asked for phrases alone."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

model['loops'][0].update(short_captions=1.0)
