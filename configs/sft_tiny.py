"""Supervised base of the tiny model: referring segmentation and region captions, after configs/words_tiny.py.

    tools/dist_train.sh configs/sft_tiny.py 4 --work-dir work_dirs/sft_tiny

Made assets/tiny on four GPUs; see assets/tiny/README.md for the command, the log and what it reached.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import IterBasedTrainLoop, ValLoop
from torch.optim import AdamW

from dual_loop.datasets import collate_samples
from dual_loop.engine.hooks import HeldOutHook, ProgressLine
from dual_loop.evaluation import GlobalBatchSampler, ReferringMetric
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from ._base_.base_data import *
    from ._base_.runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

train_dataloader = dict(captioned_dataloader, batch_size=128)

model = dict(
    type=VideoLLaVASAMModel,
    tokenizer='assets/tiny',
    pretrained='work_dirs/words_tiny_hf',  # configs/words_tiny.py, exported
    trainable=('vision_model', 'mlp1', 'language_model', 'text_hidden_fcs', 'image_encoder', 'mask_decoder'),
    loss_mask=dict(weight=2.0, num_points=1024),
    single_template_steps=800,
)

# This loop validates after the last step and every val_interval before it: here not before it. HeldOutHook adds the
# figures before training.
train_cfg = dict(type=IterBasedTrainLoop, max_iters=1600, val_interval=1600)
val_dataloader = dict(
    dataset=held_out,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type=GlobalBatchSampler),
    collate_fn=dict(type=collate_samples),
    batch_size=32,
    num_workers=4,
)
val_cfg = dict(type=ValLoop)
val_evaluator = dict(type=ReferringMetric)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=300, by_epoch=False),
    dict(type=CosineAnnealingLR, eta_min=1e-6, begin=300, end=1600, by_epoch=False),
]
log_processor = dict(type=ProgressLine, window_size=50)
default_hooks['logger'].update(interval=50)
default_hooks['checkpoint'].update(interval=400, save_total_limit=1)
custom_hooks = [dict(type=HeldOutHook)]
