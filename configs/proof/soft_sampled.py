"""As soft_bounded; the slot has what the student samples."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .soft_bounded import *

model['loops'][0].update(slot='student')
