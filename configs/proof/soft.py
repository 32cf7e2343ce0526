"""Without corruption and denoising; the slot has the teacher's caption, and the mask's gradient crosses the bridge."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .both import *

model['loops'][0].update(slot='teacher', mask_ratio=0.0, denoise_weight=0.0)
