"""A toy run of the dual loop on the small data beside it."""
__import__('dual_loop')

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import ValLoop
from mmengine.visualization import LocalVisBackend, Visualizer
from torch.optim import AdamW
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import (DescribeAnythingDataset, RefCOCODataset, SAVPairDataset, collate_samples,
                                held_out_image_ids)
from dual_loop.engine.hooks import AtomicCheckpointHook, HeldOutHook, ProgressLine, TeacherEMAHook
from dual_loop.engine.length_groups import GroupedByLengthSampler
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.evaluation import GlobalBatchSampler, ReferringMetric
from dual_loop.models import DualLoopModel
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.tokenizer import load_tokenizer

custom_imports = dict(imports=['dual_loop'], allow_failed_imports=False)

sizes = dict(image_size=112, grounding_size=128, num_image_tokens=16)
sav = dict(type=SAVPairDataset, data_root='tests/past/data/sav', repeats=20, **sizes)
refcoco = dict(type=RefCOCODataset, data_root='tests/past/data/ref_seg', split='train', **sizes)
held_out = dict(type=RefCOCODataset, data_root='tests/past/data/ref_seg', split='val', **sizes)
described = dict(type=DescribeAnythingDataset, data_root='tests/past/data/dam', split='COCOStuff', **sizes,
                 exclude_image_ids=dict(type=held_out_image_ids, data_root='tests/past/data/ref_seg'))

model = dict(
    type=DualLoopModel,
    base=dict(
        type=VideoLLaVASAMModel,
        tokenizer=dict(type=load_tokenizer, folder='tests/past/base'),
        pretrained='tests/past/base',
        lora=dict(r=2, alpha=4),
        loss_mask=dict(num_points=64),
    ),
    bridge='gumbel',
    topk=16,
    max_caption_len=6,
    denoise_weight=0.5,
)
train_dataloader = dict(
    dataset=dict(type=ConcatDataset, datasets=[sav, refcoco]),
    sampler=dict(type=GroupedByLengthSampler),
    collate_fn=dict(type=collate_samples),
    batch_size=2,
    num_workers=0,
)
train_cfg = dict(
    type=DualLoopTrainLoop,
    loop2_dataloader=dict(
        dataset=described,
        sampler=dict(type=InfiniteSampler, shuffle=True),
        collate_fn=dict(type=collate_samples),
        batch_size=2,
        num_workers=0,
    ),
    max_steps=4,
    surgery=dict(rule='orthogonal', beta=0.5, max_grad_norm=1.0),
    preview_interval=0,
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.5, begin=0, end=2, by_epoch=False),
    dict(type=CosineAnnealingLR, eta_min=0.0, begin=2, end=4, by_epoch=False),
]
val_dataloader = dict(
    dataset=held_out,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type=GlobalBatchSampler),
    collate_fn=dict(type=collate_samples),
    batch_size=4,
    num_workers=0,
)
val_cfg = dict(type=ValLoop)
val_evaluator = dict(type=ReferringMetric)
log_processor = dict(type=ProgressLine, window_size=1)
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=1, log_metric_by_epoch=False),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=AtomicCheckpointHook, interval=2),
    sampler_seed=dict(type=DistSamplerSeedHook),
)
custom_hooks = [dict(type=TeacherEMAHook, decay=0.999), dict(type=HeldOutHook)]
visualizer = dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend)])
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
randomness = dict(seed=3)
load_from = None
resume = False
