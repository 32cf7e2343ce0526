"""Rehearsal of the real run without any download: random weights, a stand-in tokenizer and demo data of the same sizes.

    python tools/train.py configs/rehearsal_4b.py --deepspeed zero2 --cfg-options train_cfg.max_steps=4

Everything else is configs/dual_loop_4b.py. Nothing can be learned here; it shows that the run starts, fits into memory
and how fast it is. Needs a GPU.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

from llava_sam2.tokenizer import stand_in_tokenizer

with read_base():
    from ._base_.rehearsal_data import *
    from .dual_loop_4b import *

model['base'].update(pretrained=None, random_weights=True, tokenizer=dict(type=stand_in_tokenizer))
train_dataloader['dataset'].update(datasets=rehearsal_loop1_datasets)
train_cfg['loop2_dataloader']['dataset'].update(datasets=rehearsal_loop2_datasets)
val_dataloader.update(dataset=rehearsal_held_out_dataset)
