"""Rehearsal of the run with Sa2VA-InternVL3-8B without any download: random weights, stand-in tokenizer, demo data.

    python tools/train.py configs/rehearsal_8b.py --deepspeed zero2 --cfg-options train_cfg.max_steps=4

As configs/rehearsal_4b.py for the 4B model. Needs a GPU.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

from llava_sam2.tokenizer import stand_in_tokenizer

with read_base():
    from .rehearsal_4b import *
    from .dual_loop_8b import model

model['base'].update(pretrained=None, random_weights=True, tokenizer=dict(type=stand_in_tokenizer))
