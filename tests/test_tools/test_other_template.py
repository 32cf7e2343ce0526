"""A published model with the markup of Qwen, a tied head and dynamic RoPE: trained by both loops, exported, judged."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from tiny_release import save_weights

from dual_loop.checkpoints.conversion import convert
from dual_loop.evaluation.loading import load_model
from llava_sam2.portable.chat import Sa2VAChatModel
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.tokenizer import load_tokenizer

PAST = Path(__file__).parents[1] / 'past'
ROPE = dict(factor=2.0, type='dynamic')
CONFIG = """
from mmengine.config import read_base

with read_base():
    from .past import *

model['base'].update(tokenizer={folder!r}, pretrained={folder!r}, network={network!r}, train_token_rows=True)
train_cfg.update(max_steps=2)
"""


@pytest.fixture(scope='module')
def published(network_sizes, checkout, tmp_path_factory):
    """A folder as Sa2VA's authors publish one: their fields, nothing of SAM 2."""
    folder = tmp_path_factory.mktemp('published')
    llm = network_sizes['llm_config'] | dict(tie_word_embeddings=True, rope_scaling=ROPE)
    torch.manual_seed(4)
    save_weights(Sa2VANetwork(Sa2VAConfig(**network_sizes | dict(llm_config=llm))), folder)
    load_tokenizer(checkout / 'assets/tiny').save_pretrained(folder)
    vision = dict(network_sizes['vision_config'])
    vision.update(model_type='intern_vit_6b', qkv_bias=vision.pop('attention_bias'), qk_normalization=False)
    (folder / 'config.json').write_text(json.dumps(dict(
        model_type='sa2va_chat', architectures=['Sa2VAChatModel'], template='qwen_chat', ps_version='v2',
        select_layer=-1, downsample_ratio=0.5, dynamic_image_size=True, use_thumbnail=True, max_dynamic_patch=12,
        vision_config=vision, llm_config=llm | dict(model_type='qwen2', architectures=['Qwen2ForCausalLM']))))
    return folder


@pytest.fixture(scope='module')
def trained(published, network_sizes, checkout, tmp_path_factory):
    """Its config and the checkpoint of two steps of both loops."""
    folder = tmp_path_factory.mktemp('trained')
    shutil.copyfile(PAST / 'config.py', folder / 'past.py')
    stated = dict(grounding_config=network_sizes['grounding_config'], mask_selection='single')
    (folder / 'config.py').write_text(CONFIG.format(folder=str(published), network=stated))
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', folder / 'config.py', '--work-dir', folder / 'work'],
        capture_output=True, text=True, cwd=folder, env=os.environ | dict(OMP_NUM_THREADS='1'))
    log = done.stdout + done.stderr
    assert done.returncode == 0 and 'step 2/2 | loop 1: mask' in log and 'loop 2: caption' in log, log[-3000:]
    return folder / 'config.py', folder / 'work/iter_2.pth'


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported') / 'out'
    assert 'language_model' in convert(*trained, folder)  # LoRA and token rows have moved
    return folder


def test_every_text_has_the_published_markup(trained):
    base = MODELS.build(Config.fromfile(trained[0]).model).base
    region, rows = torch.ones(4, 4, dtype=torch.bool), base.text_rows
    asked = [rows.segmentation(0, 'a', 0, 'a dog'), rows.segmentation(0, 'a', 0, torch.zeros(2, 32)),
             rows.description(0, region, 'A dog.'), rows.description(0, region, []), rows.monitored(0, 'a dog'),
             rows.referring_question(range(1), 'a dog'), rows.description_question(range(1), region, 'What?')]
    end = base.vocabulary.id_of('<|im_end|>')
    for row in asked:
        text = base.vocabulary.decode(row.input_ids)
        assert text.startswith('<|im_start|>user\n<img>') and '<|im_end|>\n<|im_start|>assistant\n' in text
        assert '<|user|>' not in text and '<|end|>' not in text
        supervised = [label for label in row.labels if label >= 0]
        assert not supervised or supervised[-1] == end and supervised.count(end) == 1


def test_the_exported_folder_says_what_the_published_one_did(exported):
    config = json.loads((exported / 'config.json').read_text())
    assert config['template'] == 'qwen_chat' and config['llm_config']['tie_word_embeddings'] is True
    assert config['llm_config']['rope_scaling'] == ROPE | dict(rope_type='dynamic')
    model = Sa2VAChatModel.from_pretrained(exported)
    assert model.language_model.lm_head.weight is model.get_input_embeddings().weight
    assert model.language_model.model.rotary_emb.rope_type == 'dynamic'


@pytest.mark.parametrize('protocol', ['forced', 'generate'])
def test_folder_and_checkpoint_are_judged_alike(trained, exported, checkout, tmp_path, protocol):
    spec = importlib.util.spec_from_file_location('eval_refcoco', checkout / 'tools/eval_refcoco.py')
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    results = []
    for number, model in enumerate(([*trained], [exported])):
        assert load_model(*model).vocabulary.template.name == 'qwen_chat'
        out = tmp_path / f'{number}.json'
        assert command.main([str(each) for each in [
            'refcoco', *model, '--data-root', PAST / 'data/ref_seg', '--protocol', protocol, '--examples', 0,
            '--num-workers', 0, '--max_new_tokens', 8, '--out', out]]) == 0
        results.append(json.loads(out.read_text()))
    first, second = results
    assert first['counts']['sentences'] == 5 and first['metrics'] == second['metrics']
