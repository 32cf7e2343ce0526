"""The two loops and a supervised stream beside them, which keeps the model from forgetting.

    xtuner train configs/three_loops_tiny.py
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import collate_samples
from dual_loop.models import CaptionLoop, DualLoopModel, MaskLoop, SupervisedLoop

with read_base():
    from .dual_loop_tiny import *

model = dict(
    type=DualLoopModel,
    base=model['base'],
    # Surgery takes their gradients in this order.
    loops=[
        dict(type=MaskLoop, topk=64, max_caption_len=32, denoise_weight=1.0),
        dict(type=CaptionLoop, max_caption_len=32),
        dict(type=SupervisedLoop, joins='loop1'),  # its gradient is added to loop 1's before surgery and kept whole
    ],
)
train_cfg['loop_dataloaders'] = dict(
    supervised=dict(
        dataset=dict(type=ConcatDataset, datasets=[refcoco, *describe_anything]),
        sampler=dict(type=InfiniteSampler, shuffle=True),
        collate_fn=dict(type=collate_samples),
        batch_size=16,
        num_workers=1,
        persistent_workers=True,
    ),
)
