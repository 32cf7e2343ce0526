"""As discrete; half of the captions of loop 2 are phrases, which have a question of their own, as in half of loop 1."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .discrete import *

model['loops'][0].update(short_captions=0.5)
model['loops'][1].update(short_captions=True)
model['loops'][2].update(short_captions=True)
train_cfg['loop_dataloaders']['loop2'] = dict(captions_loader, dataset=dict(
    type=ConcatDataset, datasets=[phrases_b, *captions_b['datasets']]))
