"""Both loops and the supervised stream, Gumbel bridge, denoising of weight 1, orthogonal surgery."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *
