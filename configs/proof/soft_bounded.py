"""As soft; the bridge's gradient has a bound."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .soft import *

model['loops'][0].update(bridge_max_norm=0.3)
