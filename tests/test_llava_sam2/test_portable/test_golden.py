"""The network against exact outputs of the official modules.

Every folder under tests/golden holds ``weights.safetensors`` under the official training names, ``tensors.safetensors``
with inputs and fp32 outputs, and ``config.json`` with all sizes. $GOLDEN_DIR adds the folders in it, and a folder
../shared/golden beside the checkout its own.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.weights.loading import load_pretrained

CHECKOUT = Path(__file__).resolve().parents[3]
COMMITTED = CHECKOUT / 'tests' / 'golden'
ROOTS = [COMMITTED, CHECKOUT.parent / 'shared' / 'golden', *map(Path, filter(None, [os.environ.get('GOLDEN_DIR')]))]
FOLDERS = sorted({path.parent.resolve() for root in ROOTS for path in root.glob('*/tensors.safetensors')})
PARTS = ('vision_model', 'mlp1', 'text_hidden_fcs', 'grounding_encoder')


@pytest.fixture(scope='module', params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def golden(request):
    folder = request.param
    sizes = json.loads((folder / 'config.json').read_text())
    network = Sa2VANetwork(Sa2VAConfig(
        vision_config=dict(sizes['vit'], attention_bias=True),
        llm_config=dict(
            hidden_size=sizes['llm_hidden_size'], num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
            intermediate_size=8, vocab_size=8,
        ),
        grounding_config=sizes['sam2'],
        mask_selection='predicted_iou',
    )).eval()
    load_pretrained(network, folder / 'weights.safetensors', parts=PARTS)
    return network, load_file(folder / 'tensors.safetensors')


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_the_committed_folder_is_among_them():
    assert COMMITTED / 'small' in FOLDERS
    assert sum(file.stat().st_size for file in COMMITTED.rglob('*') if file.is_file()) < 2e6


@torch.no_grad()
def test_feature_maps(golden):
    network, tensors = golden
    decoder = network.grounding_encoder.mask_decoder
    fine, middle, coarse = network.encode_grounding(tensors['g_pixel_values'])
    assert_close(decoder.conv_s0(fine), tensors['fpn_0'])
    assert_close(decoder.conv_s1(middle), tensors['fpn_1'])
    assert_close(coarse, tensors['fpn_2'])


@torch.no_grad()
def test_mask_logits(golden):
    network, tensors = golden
    maps = network.encode_grounding(tensors['g_pixel_values'])
    assert_close(network.decode_masks(maps, tensors['language_embeds']), tensors['mask_logits'])


@torch.no_grad()
def test_first_mask_logits(golden, monkeypatch):
    network, tensors = golden
    if 'first_mask_logits' not in tensors:
        pytest.skip('an older folder without the tensor')
    monkeypatch.setattr(network.config, 'mask_selection', 'single')
    maps = network.encode_grounding(tensors['g_pixel_values'])
    assert_close(network.decode_masks(maps, tensors['language_embeds']), tensors['first_mask_logits'])


@torch.no_grad()
def test_vision_embeddings(golden):
    network, tensors = golden
    assert_close(network.mlp1(network.encode_vision(tensors['pixel_values'])), tensors['vit_embeds'])


@torch.no_grad()
def test_seg_embeddings(golden):
    network, tensors = golden
    assert_close(network.text_hidden_fcs(tensors['hidden_states']), tensors['seg_embeds'])
