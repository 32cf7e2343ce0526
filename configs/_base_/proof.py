# What the arms of the proof (configs/proof, docs/proof.md) have in common: a base that knows world A of the demo data
# adapts to world B, of which 5 per cent of the scenes have captions with masks. tools/run_proof.sh changes the per
# cent, the seed, the steps and the learning rate of an arm and leaves the rest as it stands here.
from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import ValLoop
from torch.optim import AdamW

from dual_loop.datasets import collate_samples
from dual_loop.engine.hooks import CycleHook, HeldOutHook, ProgressLine, TeacherEMAHook
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.evaluation import GlobalBatchSampler, ReferringMetric
from dual_loop.models import CaptionLoop, DualLoopModel, MaskLoop, SupervisedLoop
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from .demo_data_b import *
    from .runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

loader = dict(sampler=dict(type=InfiniteSampler, shuffle=True), collate_fn=dict(type=collate_samples), batch_size=16,
              num_workers=1, persistent_workers=True)
masks_loader = dict(loader, dataset=masks_b)
captions_loader = dict(loader, dataset=captions_b)
captioned_loader = dict(loader, dataset=captioned_b['5'])

loop1 = dict(type=MaskLoop, topk=64, max_caption_len=32, denoise_weight=1.0)
loop2 = dict(type=CaptionLoop, max_caption_len=32)
# Beside loop 1; a gradient of its own in an arm without it.
supervised = dict(type=SupervisedLoop, joins='loop1')

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
    loops=[loop1, loop2, supervised],
)
train_dataloader = masks_loader
train_cfg = dict(
    type=DualLoopTrainLoop,
    loop_dataloaders=dict(loop2=captions_loader, supervised=captioned_loader),
    max_steps=600,
    surgery=dict(rule='orthogonal', beta=0.5, max_grad_norm=1.0),
    preview_interval=0,
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=3e-4, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type=CosineAnnealingLR, eta_min=0.0, begin=20, end=600, by_epoch=False),
]
val_dataloader = dict(dataset=refcoco_b['val'], sampler=dict(type='DefaultSampler', shuffle=False),
                      batch_sampler=dict(type=GlobalBatchSampler), collate_fn=dict(type=collate_samples), batch_size=64,
                      num_workers=2)
val_cfg = dict(type=ValLoop)
val_evaluator = dict(type=ReferringMetric)
log_processor = dict(type=ProgressLine, window_size=20)
default_hooks['logger'].update(interval=20)
default_hooks['checkpoint'].update(interval=200, save_total_limit=1)
custom_hooks = [
    dict(type=TeacherEMAHook, decay=0.999),
    dict(type=HeldOutHook),
    # Descriptions of held-out objects, before and after.
    dict(type=CycleHook, interval=10**9, num_samples=400, batch_size=64, max_new_tokens=32,
         datasets=[descriptions_b['val']]),
]
