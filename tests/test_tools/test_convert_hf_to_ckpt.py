"""The command line of tools/convert_hf_to_ckpt.py: from the released layout to the training layout and back."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_release import save_weights

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.video_memory import video_memory_shapes
from llava_sam2.weights.fingerprint import fingerprint
from llava_sam2.weights.loading import load_pretrained


@pytest.fixture(scope='module')
def folder(network_sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('released')
    torch.manual_seed(0)
    network = Sa2VANetwork(Sa2VAConfig(**network_sizes))
    network.carried = {name: torch.randn(shape) for name, shape in video_memory_shapes(32, 1, 40).items()}
    save_weights(network, folder)
    return folder


@pytest.fixture
def run(checkout):
    def run(*args):
        command = [sys.executable, str(checkout / 'tools' / 'convert_hf_to_ckpt.py'), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_there_and_back_is_bit_equal(run, folder, network_sizes, tmp_path):
    out = tmp_path / 'deep' / 'base.pth'
    done = run(folder, out)
    assert done.returncode == 0, done.stderr
    tensors = load_file(folder / 'model.safetensors')
    assert f'wrote {len(tensors)} tensors' in done.stdout and 'stays merged' in done.stdout
    content = torch.load(out, weights_only=True)
    assert content['meta']['fingerprint'] == fingerprint(tensors)
    names = set(content['state_dict'])
    assert {'mllm.model.mlp1.0.weight', 'mllm.model.language_model.lm_head.weight', 'text_hidden_fcs.0.weight',
            'grounding_encoder.sam2_model.memory_encoder.fuser.layers.0.gamma'} < names
    network = Sa2VANetwork(Sa2VAConfig(**network_sizes))
    load_pretrained(network, out)
    save_weights(network, tmp_path / 'back')
    back = load_file(tmp_path / 'back' / 'model.safetensors')
    assert back.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(back[name], tensors[name])] == []

    again = run(folder, out)
    assert again.returncode == 1 and 'exists; remove it' in again.stderr


def test_a_folder_that_does_not_fit_its_config_is_refused(run, folder, tmp_path):
    broken = tmp_path / 'broken'
    broken.mkdir()
    (broken / 'config.json').write_text((folder / 'config.json').read_text())
    tensors = load_file(folder / 'model.safetensors')
    tensors['mlp1.7.weight'] = tensors.pop('mlp1.1.weight')
    save_file(tensors, broken / 'model.safetensors')
    refused = run(broken, tmp_path / 'out.pth')
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert f'{broken} is not what its config.json says' in refused.stderr and 'mlp1.7.weight' in refused.stderr
    assert not list(tmp_path.glob('out*'))
