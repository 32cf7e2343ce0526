"""The real run with Sa2VA-InternVL3-8B (InternVL3-8B and SAM 2 hiera-large).

    xtuner train configs/dual_loop_8b.py --deepspeed zero2

Needs the weights in pretrained/Sa2VA-InternVL3-8B. What does not stand here is configs/dual_loop_4b.py; its learning
rate and batch sizes were chosen for that model and have not been tried with this one.
"""
__import__('dual_loop')  # puts the library shims in place before XTuner goes on

from mmengine.config import read_base

with read_base():
    from .dual_loop_4b import *

model['base'].update(tokenizer='pretrained/Sa2VA-InternVL3-8B', pretrained='pretrained/Sa2VA-InternVL3-8B')
# Its compiled layers have not been measured, and 0.3 of its activations would take more memory than the 4B model's.
model['base'].update(compile=False, memory_budget=1.0, checkpointing=True)
model['base']['network'].update(template='qwen_chat')
# Qwen2.5-7B; tokens as in the 4B model
model['base']['network']['llm_config'].update(
    hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, intermediate_size=18944,
    rope_scaling=dict(type='dynamic', factor=2.0))
for dataset in (*train_dataloader['dataset']['datasets'], *train_cfg['loop2_dataloader']['dataset']['datasets']):
    if 'tokenizer' in dataset:  # counts the tokens of captions
        dataset['tokenizer'].update(folder='pretrained/Sa2VA-InternVL3-8B')
del dataset
