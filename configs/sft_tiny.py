"""Supervised base of the tiny model, from random weights: referring segmentation and region captions.

    python tools/train.py configs/sft_tiny.py --work-dir work_dirs/sft_tiny

Made assets/tiny on one GPU; see assets/tiny/README.md for the command, the log and what it reached.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import IterBasedTrainLoop, ValLoop
from torch.optim import AdamW
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import DescribeAnythingDataset, RefCOCODataset, collate_samples, held_out_image_ids
from dual_loop.demo import ensure_demo_data
from dual_loop.engine.hooks import HeldOutHook, ProgressLine
from dual_loop.evaluation import GlobalBatchSampler, ReferringMetric
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from ._base_.runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

# The captioned part of a demo world that the dual loop never sees (another seed).
sizes = dict(image_size=112, grounding_size=128, num_image_tokens=16)
prepare = dict(type=ensure_demo_data, root='data/demo_base', images=20000, seed=1, sources=['refcoco', 'dam'])
objects = dict(num_objects=4)  # of one image in a sample: nearly free supervision, the image is encoded once

train_dataloader = dict(
    dataset=dict(
        type=ConcatDataset,
        datasets=[
            dict(type=RefCOCODataset, data_root='data/demo_base/ref_seg', split='train', prepare=prepare,
                 **sizes, **objects),
            *[dict(type=DescribeAnythingDataset, data_root='data/demo_base/dam', split=split, prepare=prepare,
                   exclude_image_ids=dict(type=held_out_image_ids, data_root='data/demo_base/ref_seg'), **sizes,
                   **objects) for split in ('COCOStuff', 'LVIS', 'SAV')],
        ],
    ),
    sampler=dict(type=InfiniteSampler, shuffle=True),
    collate_fn=dict(type=collate_samples),
    batch_size=48,
    num_workers=14,
    persistent_workers=True,
)

model = dict(
    type=VideoLLaVASAMModel,
    tokenizer='assets/tiny',
    random_weights=True,
    network=dict(
        vision_config=dict(hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384,
                           image_size=112, patch_size=14, attention_bias=True, initializer_range=0.1),
        llm_config=dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                        intermediate_size=384, vocab_size=640, max_position_embeddings=1024,
                        tie_word_embeddings=False, initializer_range=0.09),
        grounding_config=dict(image_size=128, embed_dim=24, num_heads=1, stages=(1, 2, 3, 1), global_att_blocks=(4, ),
                              window_spec=(8, 4, 8, 4), d_model=64, decoder_mlp_dim=256),
        # The IoU head gets no gradient, so its choice would be a random one.
        mask_selection='single',
    ),
    trainable=('vision_model', 'mlp1', 'language_model', 'text_hidden_fcs', 'image_encoder', 'mask_decoder'),
    loss_mask=dict(weight=2.0, num_points=1024),
    single_template_steps=2500,
)

# This loop validates after the last step and every val_interval before it: here not before it. HeldOutHook adds the
# figures before training.
train_cfg = dict(type=IterBasedTrainLoop, max_iters=5400, val_interval=5400)
val_dataloader = dict(
    dataset=dict(type=RefCOCODataset, data_root='data/demo_base/ref_seg', split='val', prepare=prepare,
                 max_samples=1000, **sizes),
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
    dict(type=CosineAnnealingLR, eta_min=1e-6, begin=300, end=5400, by_epoch=False),
]
log_processor = dict(type=ProgressLine, window_size=50)
default_hooks['logger'].update(interval=50)
default_hooks['checkpoint'].update(interval=900, save_total_limit=1)
custom_hooks = [dict(type=HeldOutHook)]
