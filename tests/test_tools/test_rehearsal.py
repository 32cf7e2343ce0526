"""The rehearsals with a tiny network: same pixels, token ids, data formats, number types and command."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

pytest.importorskip('xtuner')

import dual_loop  # noqa: F401  (makes checkpoints readable with weights_only=True)

NETWORK = [f'model.base.network.{option}' for option in (
    'vision_config.hidden_size=16', 'vision_config.num_hidden_layers=1', 'vision_config.num_attention_heads=2',
    'vision_config.intermediate_size=32', 'llm_config.hidden_size=32', 'llm_config.num_hidden_layers=2',
    'llm_config.num_attention_heads=4', 'llm_config.intermediate_size=48', 'grounding_config.embed_dim=8',
    'grounding_config.num_heads=1', 'grounding_config.stages=(1,1,2,1)', 'grounding_config.global_att_blocks=(3,)',
    'grounding_config.d_model=32', 'grounding_config.decoder_mlp_dim=32')]
LOADERS = [f'{loader}.{option}' for loader in ('train_dataloader', 'train_cfg.loop2_dataloader') for option in (
    'batch_size=2', 'num_workers=0', 'persistent_workers=False', 'pin_memory=False')]
FEW_STEPS = ['train_cfg.max_steps=2', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1',
             'param_scheduler.1.end=2', 'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1',
             'val_dataloader.num_workers=0', 'val_dataloader.dataset.max_samples=2', 'model.base.lora.r=2',
             'model.max_caption_len=4', 'model.base.compile=False', 'model.base.memory_budget=1']


@pytest.fixture(scope='module')
def rehearse(checkout, tmp_path_factory):
    """Run the command on a copy of the configs that makes its demo data elsewhere, and less of it."""
    folder = tmp_path_factory.mktemp('rehearsal')
    shutil.copytree(checkout / 'configs', folder / 'configs')
    data = folder / 'configs/_base_/rehearsal_data.py'
    text = data.read_text()
    assert text.count("'data/rehearsal") == 9 and text.count('images=400') == 1
    data.write_text(text.replace("'data/rehearsal", f"'{folder}/data").replace('images=400', 'images=24'))

    def run(*arguments, size='4b'):
        work_dir = folder / f'work_{size}_{len(arguments)}'
        done = subprocess.run(
            [sys.executable, checkout / 'tools/train.py', folder / f'configs/rehearsal_{size}.py', '--work-dir',
             work_dir, *arguments, '--cfg-options', *NETWORK, *LOADERS, *FEW_STEPS],
            cwd=folder, capture_output=True, text=True, env=os.environ | dict(CUDA_VISIBLE_DEVICES=''),
        )
        return work_dir, done.stdout + done.stderr, done.returncode

    return run


def check(work_dir, log, status):
    assert status == 0, log[-3000:]
    assert 'step 2/2 |' in log and 'loop 1: mask' in log and 'loop 2: caption' in log
    assert log.count('NOTHING CAN BE LEARNED') == 1
    assert 'is skipped' not in log and 'nan' not in log.lower()
    records = work_dir / 'bad_samples.jsonl'
    assert not records.exists() or not records.read_text()


def test_two_steps(rehearse):
    work_dir, log, status = rehearse()
    check(work_dir, log, status)
    state = torch.load(work_dir / 'iter_2.pth', weights_only=True)['state_dict']
    moved = [name for name, value in state.items() if '.lora_B.' in name and value.any()]
    assert moved and all(state[name].dtype == torch.float32 and state[name].isfinite().all() for name in moved)
    assert state['base.network.language_model.lm_head.weight'].dtype == torch.bfloat16
    assert len(state['base.network.language_model.lm_head.weight']) == 151679


@pytest.mark.full
def test_two_steps_of_another_size(rehearse):
    """With its own template and dynamic RoPE."""
    work_dir, log, status = rehearse(size='2b')
    check(work_dir, log, status)
    assert "template='qwen_chat'" in (work_dir / 'rehearsal_2b.py').read_text()


def test_two_steps_with_deepspeed(rehearse):
    pytest.importorskip('deepspeed')
    work_dir, log, status = rehearse('--deepspeed', 'zero2')
    check(work_dir, log, status)
    assert (work_dir / 'iter_2.pth').is_dir()
