"""The quickstart: the tiny base adapts to scenes with new names, by both loops beside a few captions with masks.

    xtuner train configs/adapt_tiny.py
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import ValLoop
from torch.optim import AdamW

from dual_loop.engine.hooks import CycleHook, HeldOutHook, PictureHook, ProgressLine, ReportHook, TeacherEMAHook
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.evaluation import ReferringMetric
from dual_loop.models import CaptionLoop, DualLoopModel, MaskLoop, SupervisedLoop
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from ._base_.adaptation_data import *
    from ._base_.runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

model = dict(
    type=DualLoopModel,
    base=dict(
        type=VideoLLaVASAMModel,
        tokenizer='assets/tiny',
        pretrained='assets/tiny',
        # The language model as a whole: rows of new words cannot be learned by LoRA.
        trainable=('mlp1', 'language_model', 'text_hidden_fcs', 'mask_decoder'),
        loss_mask=dict(weight=2.0, num_points=1024),
    ),
    loops=[
        dict(type=MaskLoop, bridge='discrete', max_caption_len=32),
        dict(type=CaptionLoop, max_caption_len=32),
        # Its gradient is added to loop 1's before surgery and kept whole.
        dict(type=SupervisedLoop, joins='loop1'),
    ],
)

train_dataloader = loop1_dataloader
train_cfg = dict(
    type=DualLoopTrainLoop,
    loop2_dataloader=loop2_dataloader,
    loop_dataloaders=dict(supervised=supervised_dataloader),
    max_steps=130,
    accumulative_counts=1,
    surgery=dict(rule='orthogonal', beta=0.5, max_grad_norm=1.0),
    preview_interval=65,
)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=3e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # The rows of new words start at random and have far to go.
    paramwise_cfg=dict(custom_keys={'embed_tokens': dict(lr_mult=3.0), 'lm_head': dict(lr_mult=3.0)}),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=8, by_epoch=False),
    dict(type=CosineAnnealingLR, eta_min=0.0, begin=8, end=130, by_epoch=False),
]
# Held-out masks, before and after training (HeldOutHook).
val_dataloader = held_out_dataloader
val_cfg = dict(type=ValLoop)
val_evaluator = dict(type=ReferringMetric)
log_processor = dict(type=ProgressLine, window_size=5)
custom_hooks = [
    dict(type=TeacherEMAHook, decay=0.999),
    dict(type=HeldOutHook),
    # Mask to caption to mask, and the words of it, before and after.
    dict(type=CycleHook, interval=10**9, num_samples=128, batch_size=32, max_new_tokens=32, datasets=[described_val]),
    dict(type=PictureHook, rows=4),
    dict(type=ReportHook, recorded=dict(title='captions with masks alone, same time',
                                        file='docs/quickstart/supervised.json')),
]
