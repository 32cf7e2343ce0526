"""The tiny model learns to see: words of regions and regions of words, before configs/sft_tiny.py teaches it to speak.

    tools/dist_train.sh configs/words_tiny.py 4 --work-dir work_dirs/words_tiny

From random weights, on four GPUs; see assets/tiny/README.md for the commands, the log and what was reached.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from torch.optim import AdamW

from dual_loop.engine.hooks import ProgressLine
from dual_loop.engine.loop import DualLoopTrainLoop
from dual_loop.models import DualLoopModel, WordsLoop
from llava_sam2.model import VideoLLaVASAMModel

with read_base():
    from ._base_.base_data import *
    from ._base_.runtime import *

custom_imports = dict(imports=['dual_loop.registered'], allow_failed_imports=False)

model = dict(
    type=DualLoopModel,
    base=dict(
        type=VideoLLaVASAMModel,
        tokenizer='assets/tiny',
        random_weights=True,
        network=dict(
            vision_config=dict(hidden_size=192, num_hidden_layers=5, num_attention_heads=6, intermediate_size=768,
                               image_size=112, patch_size=8, attention_bias=True, initializer_range=0.02,
                               layer_scale_init_value=1.0),
            llm_config=dict(hidden_size=192, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3,
                            intermediate_size=512, vocab_size=640, max_position_embeddings=1024,
                            tie_word_embeddings=False, initializer_range=0.07),
            grounding_config=dict(image_size=128, embed_dim=24, num_heads=1, stages=(1, 2, 3, 1),
                                  global_att_blocks=(4, ), window_spec=(8, 4, 8, 4), d_model=64, decoder_mlp_dim=256),
            # The IoU head gets no gradient, so its choice would be a random one.
            mask_selection='single',
        ),
        trainable=('vision_model', 'mlp1', 'text_hidden_fcs', 'image_encoder', 'mask_decoder'),
        loss_mask=dict(weight=2.0, num_points=1024),
    ),
    loops=[dict(type=WordsLoop, kinds=kinds)],
)
train_dataloader = dict(regions_dataloader, batch_size=256)
train_cfg = dict(type=DualLoopTrainLoop, max_steps=700, preview_interval=0)
optim_wrapper = dict(
    type=OptimWrapper, optimizer=dict(type=AdamW, lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=150, by_epoch=False),
    dict(type=CosineAnnealingLR, eta_min=1e-6, begin=150, end=700, by_epoch=False),
]
log_processor = dict(type=ProgressLine, window_size=50)
default_hooks['logger'].update(interval=50)
default_hooks['checkpoint'].update(interval=350, save_total_limit=1)
