"""The configurations of the other sizes: the 4B one round another base model, of the sizes that were published."""


import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

pytest.importorskip('xtuner')

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.weights.loading import released_shapes

SIZES = {'1b': 'Sa2VA-1B', '2b': 'Sa2VA-InternVL3-2B', '8b': 'Sa2VA-InternVL3-8B'}
#: Parameters in 1e9 of InternVL2.5-1B, InternVL3-2B and InternVL3-8B as their publisher states them.
PUBLISHED = {'1b': 0.94, '2b': 2.09, '8b': 7.94}
ROPE = dict(type='dynamic', factor=2.0)


@pytest.fixture(scope='module')
def read(checkout, tmp_path_factory):
    """A configuration as dumped into the work dir, as plain values."""
    folder, known = tmp_path_factory.mktemp('dumped'), {}

    def read(name: str) -> dict:
        if name not in known:
            Config.fromfile(checkout / f'configs/{name}.py').dump(folder / f'{name}.py')
            known[name] = Config.fromfile(folder / f'{name}.py').to_dict()
        return copy.deepcopy(known[name])

    return read


def renamed(value, names: dict):
    """Plain values in which some strings are others."""
    if isinstance(value, dict):
        return {key: renamed(each, names) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(renamed(each, names) for each in value)
    return names.get(value, value) if isinstance(value, str) else value


def read_by_training(config: dict) -> dict:
    """Without the lists that the loaders were put together from."""
    unused = ('words', 'sizes', 'without_held_out', 'loop1_datasets', 'loop2_datasets', 'held_out_dataset')
    return {key: value for key, value in config.items() if key not in unused}


@pytest.mark.parametrize('size', SIZES)
def test_all_but_the_base_model_is_that_of_the_4b_run(read, size):
    folder = f'pretrained/{SIZES[size]}'
    config, of_4b = read(f'dual_loop_{size}'), read('dual_loop_4b')
    base, base_4b = config['model']['base'], of_4b['model']['base']
    assert base['pretrained'] == base['tokenizer'] == folder
    network, network_4b = base.pop('network'), base_4b.pop('network')
    assert network.pop('template') == 'qwen_chat' and 'template' not in network_4b
    llm, llm_4b = network.pop('llm_config'), network_4b.pop('llm_config')
    assert network == network_4b  # InternViT-300M and SAM 2 hiera-large
    widths = ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'num_key_value_heads', 'intermediate_size')
    assert llm.pop('rope_scaling', None) == (None if size == '1b' else ROPE)
    assert llm.keys() == llm_4b.keys() and {name for name in llm if llm[name] != llm_4b[name]} <= set(widths)
    if size == '8b':  # whose activations are recomputed
        assert (base.pop('compile'), base.pop('memory_budget'), base.pop('checkpointing')) == (False, 1.0, True)
        assert (base_4b.pop('compile'), base_4b.pop('memory_budget')) == (True, 0.3)
    assert read_by_training(config) == renamed(read_by_training(of_4b), {'pretrained/Sa2VA-4B': folder})


@pytest.mark.parametrize('size', SIZES)
def test_the_network_has_the_published_size(read, size):
    with torch.device('meta'):
        network = Sa2VANetwork(Sa2VAConfig(**read(f'dual_loop_{size}')['model']['base']['network']))
    shapes = {name: list(shape) for name, shape in released_shapes(network).items()}
    assert shapes['language_model.lm_head.weight'] == shapes['language_model.model.embed_tokens.weight']
    for name in ('language_model.lm_head.weight', 'language_model.model.embed_tokens.weight'):
        assert shapes[name][0] == 151679
        shapes[name][0] = 151674  # InternVL has no rows for [SEG] <p> </p> <vp> </vp>
    internvl = sum(torch.Size(shape).numel() for name, shape in shapes.items()
                   if name.startswith(('vision_model.', 'mlp1.', 'language_model.')))
    assert round(internvl / 1e9, 2) == PUBLISHED[size]
    assert network.config.num_image_tokens == 256 and network.config.chat_template.name == 'qwen_chat'


@pytest.mark.parametrize('size', SIZES)
def test_the_model_builds_with_random_weights(read, size):
    """On the meta device, with LoRA, loops and teacher, as its rehearsal says."""
    rehearsal, real = read(f'rehearsal_{size}'), read(f'dual_loop_{size}')
    base = rehearsal['model']['base']
    assert base['pretrained'] is None and base['random_weights']
    assert base['tokenizer'] == dict(type='llava_sam2.tokenizer.stand_in_tokenizer')
    for key in ('pretrained', 'random_weights', 'tokenizer'):
        real['model']['base'].pop(key, None)
        base.pop(key)
    assert rehearsal['model'] == real['model']
    of_4b = read('rehearsal_4b')
    assert {key: rehearsal[key] for key in of_4b if key != 'model'} == {
        key: value for key, value in of_4b.items() if key != 'model'}
    settings = read(f'rehearsal_{size}')['model']
    with torch.device('meta'):
        model = MODELS.build(settings)
    assert model.base.vocabulary.template.name == 'qwen_chat'
    layers = settings['base']['network']['llm_config']['num_hidden_layers']
    assert sum('.lora_A.' in name for name in model.trainables()) == 7 * layers
    assert next(iter(model.trainables().values())).is_meta
