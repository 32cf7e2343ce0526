"""The real run: the two loops continue from Sa2VA-4B (InternVL2.5-4B and SAM 2 hiera-large).

    xtuner train configs/dual_loop_4b.py --deepspeed zero2

Needs the weights in pretrained/Sa2VA-4B and the data of _base_/real_data.py; configs/rehearsal_4b.py needs neither.
Per GPU; the learning rate was used with eight.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import ValLoop
from torch.optim import AdamW
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import collate_samples
from dual_loop.engine.hooks import HeldOutHook, PictureHook, ProgressLine, ReportHook, TeacherEMAHook
from dual_loop.engine.length_groups import GroupedByLengthSampler
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.evaluation import GlobalBatchSampler, ReferringMetric
from dual_loop.models import DualLoopModel
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from ._base_.real_data import *
    from ._base_.runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

model = dict(
    type=DualLoopModel,
    base=dict(
        type=VideoLLaVASAMModel,
        tokenizer='pretrained/Sa2VA-4B',
        pretrained='pretrained/Sa2VA-4B',  # the released folder; it must agree with the sizes below
        network=dict(
            # InternViT-300M-448px-V2.5
            vision_config=dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
                               image_size=448, patch_size=14, attention_bias=True, layer_norm_eps=1e-6),
            # Qwen2.5-3B; 151 674 tokens of InternVL and [SEG] <p> </p> <vp> </vp>
            llm_config=dict(hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
                            intermediate_size=11008, vocab_size=151679, max_position_embeddings=32768,
                            rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=False),
            # SAM 2 hiera-large
            grounding_config=dict(image_size=1024, embed_dim=144, num_heads=2, stages=(2, 6, 36, 4),
                                  global_att_blocks=(23, 33, 43), window_pos_embed_bkg_spatial_size=(7, 7),
                                  window_spec=(8, 4, 16, 8), d_model=256, decoder_mlp_dim=2048),
            mask_selection='predicted_iou',  # as the released weights were trained
            max_num_tiles=1,
        ),
        dtype='bfloat16',  # of the frozen weights
        trainable=('mlp1', 'text_hidden_fcs', 'mask_decoder'),
        lora=dict(r=128, alpha=256, dropout=0.05),
        loss_mask=dict(weight=2.0, num_points=12544),
        loss_dice=dict(weight=0.5),
        compile=True,  # a minute or two at the start; without it, checkpointing=True and no memory_budget
        memory_budget=0.3,  # share of the activations that is kept for the backward pass
    ),
    bridge='gumbel',
    topk=512,  # candidates per caption position
    tau=0.7,
    max_caption_len=256,  # T, in tokens
    mask_ratio=0.25,  # of the teacher's tokens, corrupted
    answer_weight=1.0,
    denoise_weight=0.0,
    mask_weight=0.0,
)

train_dataloader = dict(
    dataset=dict(type=ConcatDataset, datasets=loop1_datasets),
    sampler=dict(type=GroupedByLengthSampler),  # all rows of a step, on all GPUs, are of similar length
    collate_fn=dict(type=collate_samples),
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
)
train_cfg = dict(
    type=DualLoopTrainLoop,
    loop2_dataloader=dict(
        dataset=dict(type=ConcatDataset, datasets=loop2_datasets),
        sampler=dict(type=GroupedByLengthSampler),
        collate_fn=dict(type=collate_samples),
        batch_size=16,
        num_workers=4,
        persistent_workers=True,
        pin_memory=True,
    ),
    max_steps=1500,
    accumulative_counts=2,  # micro-batches of each loop in a step
    surgery=dict(rule='orthogonal', beta=0.5, max_grad_norm=1.0),
    preview_interval=100,
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=2e-5, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, begin=0, end=75, by_epoch=False),  # 5 % of the steps
    dict(type=CosineAnnealingLR, eta_min=0.0, begin=75, end=1500, by_epoch=False),
]
# Held-out masks, before and after training (HeldOutHook).
val_dataloader = dict(
    dataset=held_out_dataset,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type=GlobalBatchSampler),
    collate_fn=dict(type=collate_samples),
    batch_size=16,
    num_workers=4,
)
val_cfg = dict(type=ValLoop)
val_evaluator = dict(type=ReferringMetric)
log_processor = dict(type=ProgressLine, window_size=10)
default_hooks['logger'].update(interval=10)
default_hooks['checkpoint'].update(interval=500)
custom_hooks = [
    dict(type=TeacherEMAHook, decay=0.999),
    dict(type=HeldOutHook),
    dict(type=PictureHook, rows=4),
    dict(type=ReportHook),
]
