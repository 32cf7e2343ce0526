"""Both loops, the bridge's gradient bounded apart from the rest."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'][0].update(bridge_max_norm=1.0)
