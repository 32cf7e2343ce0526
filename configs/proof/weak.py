"""Both loops, with little denoising and a bound on the bridge's gradient."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .both import *

model['loops'][0].update(denoise_weight=0.1, bridge_max_norm=0.3)
