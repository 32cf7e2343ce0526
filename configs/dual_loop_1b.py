"""The real run with Sa2VA-1B (InternVL2.5-1B and SAM 2 hiera-large).

    xtuner train configs/dual_loop_1b.py --deepspeed zero2

Needs the weights in pretrained/Sa2VA-1B. What does not stand here is configs/dual_loop_4b.py; its learning
rate and batch sizes were chosen for that model and have not been tried with this one.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .dual_loop_4b import *

model['base'].update(tokenizer='pretrained/Sa2VA-1B', pretrained='pretrained/Sa2VA-1B')
model['base']['network'].update(template='qwen_chat')
# Qwen2.5-0.5B; tokens as in the 4B model
model['base']['network']['llm_config'].update(
    hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864)
for dataset in (*train_dataloader['dataset']['datasets'], *train_cfg['loop2_dataloader']['dataset']['datasets']):
    if 'tokenizer' in dataset:  # counts the tokens of captions
        dataset['tokenizer'].update(folder='pretrained/Sa2VA-1B')
del dataset
