"""Rehearsal of configs/dual_loop_4b_recommended.py without any download: random weights, stand-in tokenizer, demo data.

    python tools/train.py configs/rehearsal_4b_recommended.py --deepspeed zero2 --cfg-options train_cfg.max_steps=4

As configs/rehearsal_4b.py for the method as specified. Needs a GPU.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

from llava_sam2.tokenizer import stand_in_tokenizer

with read_base():
    from ._base_.rehearsal_data import *
    from .dual_loop_4b_recommended import *

model['base'].update(pretrained=None, random_weights=True, tokenizer=dict(type=stand_in_tokenizer))
train_dataloader['dataset'].update(datasets=rehearsal_loop1_datasets[:3])
train_cfg['loop2_dataloader']['dataset'].update(datasets=rehearsal_loop2_datasets)
train_cfg['loop_dataloaders']['supervised']['dataset'].update(
    datasets=[*rehearsal_loop1_datasets[3:], *rehearsal_loop2_datasets])
val_dataloader.update(dataset=rehearsal_held_out_dataset)
