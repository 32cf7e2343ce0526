"""Weights of the tiny network in every layout."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_release import save_weights

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.key_maps import SAM2_PREFIX, released_to_training
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.video_memory import video_memory_shapes
from llava_sam2.weights.token_rows import added_token_ids


@pytest.fixture(scope='session')
def sizes(network_sizes):
    return dict(network_sizes, mask_selection='predicted_iou')


@pytest.fixture(scope='session')
def network(sizes):
    torch.manual_seed(1)
    return Sa2VANetwork(Sa2VAConfig(**sizes)).eval()


@pytest.fixture
def other(sizes):
    """A network of the same sizes with other weights."""
    torch.manual_seed(2)
    return Sa2VANetwork(Sa2VAConfig(**sizes)).eval()


@pytest.fixture
def network_4b():
    """The network of the 4B model, without weights."""
    with torch.device('meta'):
        return Sa2VANetwork(Sa2VAConfig(
            vision_config=dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
                               image_size=448, patch_size=14, attention_bias=True),
            llm_config=dict(hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
                            intermediate_size=11008, vocab_size=151679, tie_word_embeddings=False),
        ))


@pytest.fixture(scope='session')
def memory():
    """SAM 2's video memory for it, with one layer of attention."""
    generator = torch.Generator().manual_seed(3)
    shapes = video_memory_shapes(width=32, num_layers=1, mlp_dim=40)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope='session')
def folder(network, memory, tmp_path_factory):
    """A released folder, whole."""
    folder = tmp_path_factory.mktemp('released')
    save_weights(network, folder)
    file = folder / 'model.safetensors'
    save_file(load_file(file) | memory, file)
    return folder


@pytest.fixture
def tensors(folder):
    """The tensors of the released folder; a dict to change."""
    return load_file(folder / 'model.safetensors')


@pytest.fixture(scope='session')
def token_ids(vocabulary):
    return added_token_ids(vocabulary.tokenizer)


@pytest.fixture
def internvl(sizes, tensors, vocabulary, tmp_path):
    """An InternVL folder and a SAM 2 checkpoint: no ``[SEG]`` head, and one row per token of InternVL."""
    first = min(added_token_ids(vocabulary.tokenizer).values())
    mllm, sam2 = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(SAM2_PREFIX):
            sam2[released_to_training(name).removeprefix(SAM2_PREFIX)] = tensor
        elif not name.startswith('text_hidden_fcs.'):
            rows = first if name.endswith(('embed_tokens.weight', 'lm_head.weight')) else len(tensor)
            mllm[name] = tensor[:rows].clone()
    (tmp_path / 'internvl').mkdir()
    # As InternVL publishes it: its own field names, nothing of SAM 2.
    vision = dict(sizes['vision_config'])
    vision['qkv_bias'] = vision.pop('attention_bias')
    config = dict(vision_config=vision, llm_config=dict(sizes['llm_config'], vocab_size=first), template='internvl2_5',
                  model_type='internvl_chat', ps_version='v2')
    (tmp_path / 'internvl' / 'config.json').write_text(json.dumps(config))
    save_file(mllm, tmp_path / 'internvl' / 'model.safetensors')
    torch.save(dict(model=sam2), tmp_path / 'sam2.pt')
    return dict(mllm=tmp_path / 'internvl', sam2=tmp_path / 'sam2.pt')


@pytest.fixture
def with_lora(tensors):
    """The same weights as the official training code names them with LoRA (r 2), and what they are when merged."""
    generator = torch.Generator().manual_seed(4)
    training, merged = {}, dict(tensors)
    for name, tensor in tensors.items():
        if not name.startswith('language_model.'):
            training[released_to_training(name)] = tensor
            continue
        place = 'mllm.model.language_model.base_model.model.' + name.removeprefix('language_model.')
        module, _, kind = place.rpartition('.')
        if not module.endswith('_proj'):
            training[place] = tensor
            continue
        training[f'{module}.base_layer.{kind}'] = tensor
        if kind == 'weight':
            a = torch.randn(2, tensor.shape[1], generator=generator)
            b = torch.randn(tensor.shape[0], 2, generator=generator)
            training |= {f'{module}.lora_A.default.weight': a, f'{module}.lora_B.default.weight': b}
            merged[name] = tensor + 2.0 * (b @ a)
    return training, merged
