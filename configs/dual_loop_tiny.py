"""The main job on a CPU: the two loops continue from the shipped tiny base, on data that the base did not see.

    xtuner train configs/dual_loop_tiny.py
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import ValLoop
from torch.optim import AdamW

from dual_loop.engine.hooks import CycleHook, HeldOutHook, PictureHook, ProgressLine, ReportHook, TeacherEMAHook
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.evaluation import ReferringMetric
from dual_loop.models import DualLoopModel
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from ._base_.demo_data import *
    from ._base_.runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

model = dict(
    type=DualLoopModel,
    base=dict(
        type=VideoLLaVASAMModel,
        tokenizer='assets/tiny',
        pretrained='assets/tiny',
        trainable=('mlp1', 'text_hidden_fcs', 'mask_decoder'),
        lora=dict(r=16, alpha=32, dropout=0.05),
        loss_mask=dict(weight=2.0, num_points=1024),
    ),
    bridge='gumbel',
    topk=64,  # candidates per caption position, of 640 tokens
    tau=0.7,
    max_caption_len=32,
    mask_ratio=0.25,
    answer_weight=1.0,
    denoise_weight=1.0,  # 0 in the 4B config; without it nothing keeps the captions language
    mask_weight=0.0,
)

train_dataloader = loop1_dataloader
train_cfg = dict(
    type=DualLoopTrainLoop,
    loop2_dataloader=loop2_dataloader,
    max_steps=300,
    accumulative_counts=1,
    surgery=dict(rule='orthogonal', beta=0.5, max_grad_norm=1.0),
    preview_interval=50,
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=8, by_epoch=False),
    dict(type=CosineAnnealingLR, eta_min=0.0, begin=8, end=300, by_epoch=False),
]
# Held-out masks, before and after training (HeldOutHook).
val_dataloader = held_out_dataloader
val_cfg = dict(type=ValLoop)
val_evaluator = dict(type=ReferringMetric)
log_processor = dict(type=ProgressLine, window_size=5)
custom_hooks = [
    dict(type=TeacherEMAHook, decay=0.999),
    dict(type=HeldOutHook),
    # Mask to caption to mask: before, half-way and after. It takes 4 s in all.
    dict(type=CycleHook, interval=150, num_samples=16, datasets=[sav, refcoco_val]),
    dict(type=PictureHook, rows=4),
    dict(type=ReportHook),
]
