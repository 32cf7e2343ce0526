"""Both loops and the supervised stream, orthogonal surgery: the method."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *
