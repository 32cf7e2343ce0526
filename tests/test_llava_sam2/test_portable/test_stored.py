"""Tensors on disk: every kind of file opens, and what is damaged is named with a remedy."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llava_sam2.portable.pickled import CheckpointError
from llava_sam2.portable.stored import INDEX, lora_of_config, open_tensors


@pytest.fixture
def tensors():
    return {'a.weight': torch.arange(6.0).view(2, 3), 'b.bias': torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture
def sharded(tensors, tmp_path):
    weight_map = {}
    for index, (name, tensor) in enumerate(tensors.items()):
        save_file({name: tensor}, tmp_path / f'shard{index}.safetensors')
        weight_map[name] = f'shard{index}.safetensors'
    (tmp_path / INDEX).write_text(json.dumps(dict(metadata={}, weight_map=weight_map)))
    return tmp_path


def assert_holds(found, tensors):
    assert {name: stored.shape for name, stored in found.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert all(torch.equal(found.tensors[name].tensor(), tensor) for name, tensor in tensors.items())
    assert all(stored.floating for stored in found.tensors.values())


@pytest.mark.parametrize(
    'name', ['x.safetensors', 'model.safetensors', 'shards', 'bare.pth', 'mmengine.pth', 'sam2.pt']
)
def test_every_kind_opens(name, tensors, sharded, tmp_path):
    path = tmp_path / name
    if name.endswith('.safetensors'):
        save_file(tensors, path)
        path = tmp_path if name == 'model.safetensors' else path
        (tmp_path / INDEX).unlink()
    elif name == 'shards':
        path = sharded
    else:
        content = {'bare.pth': tensors, 'sam2.pt': dict(model=tensors)}
        torch.save(content.get(name, dict(state_dict=tensors, meta=dict(cfg='x = 1'))), path)
    found = open_tensors(path)
    assert_holds(found, tensors)
    assert all(file.is_file() for file in found.files)
    assert found.config == ('x = 1' if name == 'mmengine.pth' else '')


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='the system does not say what is mapped')
def test_tensors_are_mapped_from_their_files(tensors, tmp_path):
    torch.save(dict(state_dict=tensors), tmp_path / 'x.pth')
    save_file(tensors, tmp_path / 'x.safetensors')
    for name in ('x.pth', 'x.safetensors'):
        found = open_tensors(tmp_path / name)
        assert str(tmp_path / name) in Path('/proc/self/maps').read_text()
        assert_holds(found, tensors)


def test_our_own_folder(tensors, tmp_path):
    save_file(tensors, tmp_path / 'trainables.safetensors')
    with pytest.raises(CheckpointError, match='state.json is missing; copy the whole folder again'):
        open_tensors(tmp_path)
    (tmp_path / 'state.json').write_text(json.dumps(dict(run=dict(config='y = 2', weights='abc'))))
    found = open_tensors(tmp_path)
    assert_holds(found, tensors)
    assert (found.config, found.base) == ('y = 2', 'abc')


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as error:
        open_tensors(path)
    assert str(path) in str(error.value)


def test_missing_shard(sharded):
    (sharded / 'shard1.safetensors').unlink()
    refused(sharded, 'shard1.safetensors is missing although .* lists it; download the folder again')


def test_truncated_file(sharded):
    shard = sharded / 'shard0.safetensors'
    data = shard.read_bytes()
    for length in (0, 4, len(data) // 2, len(data) - 1):
        shard.write_bytes(data[:length])
        refused(sharded, 'shard0.safetensors is not a whole safetensors file .*; download it again')


@pytest.mark.parametrize('content, message', [
    ('{"weight_map": {"a', 'index.json is damaged .*; copy or download it again'),
    ('[]', 'index.json is damaged: it is a list'),
    ('{}', 'index.json has no weight_map'),
    ('{"weight_map": {"a.weight": 3}}', 'index.json has no weight_map from tensors to files'),
    ('{"weight_map": {"a.weight": "../x.safetensors"}}', 'index.json names ../x.safetensors, which is not a file of'),
    ('{"weight_map": {"c": "shard0.safetensors"}}', 'says that c is in shard0.safetensors, but it is not'),
])
def test_damaged_index(sharded, content, message):
    (sharded / INDEX).write_text(content)
    refused(sharded, message)


def test_one_tensor_in_two_shards(sharded, tensors):
    save_file(tensors, sharded / 'shard1.safetensors')
    refused(sharded, 'holds a.weight twice, in shard0.safetensors and shard1.safetensors')


@pytest.mark.parametrize('content, message', [
    ([1, 2], 'holds a list and no tensors by name'),
    (dict(), 'it is empty'),
    (dict(epoch=3), "its entry 'epoch' is a int"),
    (dict(state_dict=dict(a=torch.ones(1), b='text')), "its entry 'b' is a str"),
    (dict(state_dict={3: torch.ones(1)}), 'its entry 3 is a Tensor'),
])
def test_a_pth_that_is_no_checkpoint(content, message, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    refused(tmp_path / 'x.pth', message)


def test_folders_without_plain_weights(tmp_path):
    refused(tmp_path / 'nowhere', 'there is no such file or folder')
    refused(tmp_path, 'expected a .safetensors or .pth file, or a folder with')
    (tmp_path / 'mp_rank_00_model_states.pt').write_bytes(b'')
    refused(tmp_path, 'files of DeepSpeed only.*Convert it first')


OFFICIAL = """
model = dict(
    llm_lora=dict(lora_alpha=256, lora_dropout=0.05, r=128, task_type='CAUSAL_LM', type='peft.LoraConfig'),
    type='VideoLLaVASAMModel')
"""


@pytest.mark.parametrize('text, expected', [
    (OFFICIAL, dict(r=128, alpha=256)),
    ('model = dict(base=dict(lora=dict(r=2, alpha=4, dropout=0.0)))', dict(r=2, alpha=4)),
    ('model = dict(base=dict(lora=None))', None),
    (OFFICIAL + 'lora = 3', dict(r=128, alpha=256)),
    ('a = dict(lora=dict(r=2, alpha=4)); b = dict(lora=dict(r=2, alpha=8))', None),
    ('a = dict(lora=dict(r=2, alpha=4, use_rslora=True))', None),
    ('not (python', None), ('', None),
    ('a = dict(lora=dict(r=__import__("os").abort(), alpha=4))', None),
])
def test_lora_settings_are_read_from_a_config_text(text, expected):
    assert lora_of_config(text) == expected
