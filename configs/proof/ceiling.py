"""Supervised training on all captions, with their masks, and on as many phrases: a bound for finding."""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .._base_.proof import *

model['loops'] = [dict(supervised, joins=None)]
train_dataloader = dict(loader, dataset=dict(type=ConcatDataset, datasets=[
    *captioned_b['5']['datasets'],
    *[dict(each, name=f'written_{number}') for number, each in enumerate([phrases_b, *captions_b['datasets']])]]))
train_cfg['loop_dataloaders'] = {}
