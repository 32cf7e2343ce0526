"""Weights in and out: what goes in comes out, and nothing is loaded in part."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_sam2.checkpoint import CheckpointError, load_pretrained, released_state, save_released
from llava_sam2.configuration import Sa2VAConfig
from llava_sam2.key_maps import CARRIED_PREFIXES, released_to_training
from llava_sam2.network import Sa2VANetwork

QKV = 'vision_model.encoder.layers.0.attn.qkv.weight'


@pytest.fixture(scope='module')
def sizes(network_sizes):
    return dict(network_sizes, mask_selection='predicted_iou')


@pytest.fixture(scope='module')
def network(sizes):
    torch.manual_seed(1)
    return Sa2VANetwork(Sa2VAConfig(**sizes)).eval()


@pytest.fixture(scope='module')
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp('released')
    save_released(network, folder)
    return folder


@pytest.fixture
def other(sizes):
    torch.manual_seed(2)
    return Sa2VANetwork(Sa2VAConfig(**sizes)).eval()


@pytest.fixture
def tensors(folder):
    return load_file(folder / 'model.safetensors')


def copies(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal_states(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def refused(network, source, message):
    before = copies(network)
    with pytest.raises(CheckpointError, match=message) as error:
        load_pretrained(network, source)
    assert str(source) in str(error.value)
    assert_equal_states(network.state_dict(), before)


def test_round_trip_is_bit_equal(network, folder, other):
    report = load_pretrained(other, folder)
    assert_equal_states(other.state_dict(), network.state_dict())
    assert sum(report.found.values()) == len(load_file(folder / 'model.safetensors'))
    config = Sa2VAConfig.from_pretrained(folder)
    assert (config.mask_selection, config.image_size) == ('predicted_iou', 112)
    assert config.grounding_config['d_model'] == 32


def test_joined_and_split_tensors(network, tensors):
    """q, k, v are rows of one tensor and the point embeddings are tensors of their own."""
    attention = network.vision_model.encoder.layer[0].attention
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    assert torch.equal(tensors[QKV], torch.cat([part.weight for part in parts]))
    points = network.grounding_encoder.prompt_encoder.point_embed.weight
    name = 'grounding_encoder.sam2_model.sam_prompt_encoder.point_embeddings.2.weight'
    assert torch.equal(tensors[name], points[2:3])


def test_sharded_folder_and_training_names(network, tensors, other, tmp_path):
    names = {released_to_training(name): name for name in tensors}
    assert any(name.startswith('mllm.model.vision_model.') for name in names)
    shards = [sorted(names)[::2], sorted(names)[1::2]]
    weight_map = {}
    for index, shard in enumerate(shards):
        save_file({name: tensors[names[name]] for name in shard}, tmp_path / f'shard{index}.safetensors')
        weight_map |= {name: f'shard{index}.safetensors' for name in shard}
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=weight_map)))
    load_pretrained(other, tmp_path)
    assert_equal_states(other.state_dict(), network.state_dict())
    (tmp_path / 'shard1.safetensors').unlink()
    refused(other, tmp_path, 'shard1.safetensors is missing')


def test_missing_tensor_is_refused(tensors, other, tmp_path):
    del tensors[QKV]
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', f'1 tensors are missing: {QKV}')


def test_unexpected_tensor_is_refused(tensors, other, tmp_path):
    save_file(tensors | {'mlp1.9.weight': torch.zeros(2)}, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', r'1 tensors are not expected: mlp1\.9\.weight')
    save_file(tensors | {'mlp2.0.weight': torch.zeros(2)}, tmp_path / 'y.safetensors')
    refused(other, tmp_path / 'y.safetensors', r'1 tensors belong to no part: mlp2\.0\.weight')


@pytest.mark.parametrize('change', [lambda t: t[1:], lambda t: t.T, lambda t: t.flatten()])
def test_wrong_shape_is_refused(tensors, other, tmp_path, change):
    # Transposed and flattened it has as many numbers as expected.
    assert tensors[QKV].shape[0] != tensors[QKV].shape[1]
    tensors[QKV] = change(tensors[QKV]).contiguous()
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', f'1 tensors have another shape: {QKV} .*expected')


def test_truncated_file_is_refused(folder, other, tmp_path):
    data = (folder / 'model.safetensors').read_bytes()
    (tmp_path / 'model.safetensors').write_bytes(data[: len(data) // 2])
    refused(other, tmp_path, 'model.safetensors is not a whole safetensors file')


def test_missing_folder_is_refused(other, tmp_path):
    refused(other, tmp_path / 'nowhere', 'no weights at')


def test_only_the_named_parts_are_loaded(network, folder, other):
    before = copies(other)
    report = load_pretrained(other, folder, parts=['mlp1', 'vision_model'])
    assert report.found.keys() == {'mlp1', 'vision_model'}
    for name, tensor in other.state_dict().items():
        source = network.state_dict() if name.startswith(('mlp1.', 'vision_model.')) else before
        assert torch.equal(tensor, source[name]), name
    with pytest.raises(ValueError, match=r"parts \['mlp2'\] are unknown"):
        load_pretrained(other, folder, parts=['mlp2'])


@pytest.fixture
def carried():
    """One tensor of every group of SAM 2's video memory."""
    names = [prefix + 'weight' if prefix.endswith('.') else prefix for prefix in CARRIED_PREFIXES]
    return {name: torch.full((2,), float(index)) for index, name in enumerate(names)}


def test_video_memory_is_carried_through(tensors, carried, other, folder, tmp_path):
    save_file(tensors | carried, tmp_path / 'x.safetensors')
    assert load_pretrained(other, tmp_path / 'x.safetensors').carried == len(carried)
    load_pretrained(other, folder, parts=['mlp1'])  # another part from elsewhere does not drop it
    save_released(other, tmp_path / 'out')
    assert_equal_states(load_file(tmp_path / 'out' / 'model.safetensors'), tensors | carried)


def test_video_memory_is_all_or_none(tensors, carried, other, tmp_path):
    del carried[CARRIED_PREFIXES[2] + 'weight']
    save_file(tensors | carried, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', f'memory are missing: {CARRIED_PREFIXES[2]}')


@torch.no_grad()
def test_merged_lora_computes_what_lora_computed(build_base, tmp_path):
    model = build_base().eval()
    inputs = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    expected = model.network.language_model.model(inputs_embeds=inputs).last_hidden_state
    save_released(model.network, tmp_path)
    assert not any('lora' in name or 'base_layer' in name for name in load_file(tmp_path / 'model.safetensors'))
    merged = Sa2VANetwork(Sa2VAConfig.from_pretrained(tmp_path)).eval()
    load_pretrained(merged, tmp_path)
    actual = merged.language_model.model(inputs_embeds=inputs).last_hidden_state
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    for name, parameter in model.named_parameters():
        if '.lora_B.' in name:
            parameter.zero_()
    without = model.network.language_model.model(inputs_embeds=inputs).last_hidden_state
    assert (without - expected).abs().max() > 1e-2  # LoRA did matter


def test_base_weights_load_under_lora_too(network, folder, build_base):
    model = build_base()
    load_pretrained(model.network, folder)
    own = model.network.language_model.model.layers[0].mlp.up_proj.base_layer.weight
    assert torch.equal(own, network.language_model.model.layers[0].mlp.up_proj.weight)
    state = released_state(model.network)
    assert torch.equal(state[QKV], released_state(network)[QKV])
