"""As discrete, 64 rows of loop 1."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

train_dataloader.update(batch_size=64)
