"""Random weights: the distributions that the parts ask for, whatever draws them."""

import math

import pytest
import torch

from llava_sam2.initialisation import _FastDraws, build_network
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.network import Sa2VANetwork


@pytest.fixture
def small_pool(monkeypatch):
    """Let tensors of the tiny network count as large."""
    monkeypatch.setattr(_FastDraws, 'LARGE', 1000)
    monkeypatch.setattr(_FastDraws, 'POOL', 2**16 - 15)


def build(network_sizes, dtype=torch.float32):
    torch.manual_seed(0)
    return build_network(Sa2VAConfig(**network_sizes), dtype)


def test_small_tensors_are_drawn_as_always(network_sizes):
    torch.manual_seed(0)
    plain = Sa2VANetwork(Sa2VAConfig(**network_sizes))
    network = build(network_sizes)
    assert torch.equal(network.language_model.lm_head.weight, plain.language_model.lm_head.weight)
    assert torch.equal(network.mlp1[3].weight, plain.mlp1[3].weight)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_large_tensors_have_the_same_distribution(network_sizes, small_pool, dtype):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_FastDraws, 'LARGE', 10**9)
        plain = build(network_sizes)
    fast = build(network_sizes, dtype)
    different = 0
    for (name, expected), actual in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert actual.dtype == dtype and torch.isfinite(actual).all(), name
        if expected.numel() < 1000:
            continue
        expected, actual = expected.detach().float(), actual.detach().float()
        different += not torch.equal(expected, actual)
        spread = expected.std().item()
        assert actual.std().item() == pytest.approx(spread, rel=0.1), name
        assert abs(actual.mean() - expected.mean()) < 5 * spread / math.sqrt(expected.numel()) + 1e-6, name
        assert actual.abs().max() < 2.0 * expected.abs().max() + 1e-6, name
    assert different > 10


def test_rows_of_a_large_matrix_differ(small_pool):
    with _FastDraws():
        matrix = torch.nn.Embedding(4096, 128).weight  # eight times the pool
    assert len(torch.unique(matrix, dim=0)) == 4096
    assert torch.corrcoef(matrix[:200]).fill_diagonal_(0).abs().max() < 0.6


def test_equal_seeds_give_equal_weights(network_sizes, small_pool):
    one, two = build(network_sizes), build(network_sizes)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_a_given_generator_is_used(small_pool):
    drawn = []
    for _ in range(2):
        with _FastDraws():
            drawn.append(torch.empty(2000).normal_(generator=torch.Generator().manual_seed(4)))
    assert torch.equal(drawn[0], torch.empty(2000).normal_(generator=torch.Generator().manual_seed(4)))
    assert torch.equal(*drawn)


def test_the_default_type_comes_back(network_sizes):
    assert build(network_sizes, torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(TypeError):
        build_network(None, torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32


def test_loras_start_is_peft_s_own(build_base, small_pool):
    model = build_base(stir=False, dtype='bfloat16', lora=dict(r=8, alpha=16))
    for name, parameter in model.trainables().items():
        if '.lora_A.' in name:  # Kaiming's uniform bound with a = sqrt(5)
            bound = 1 / math.sqrt(parameter.shape[1])
            assert 0.8 * bound < parameter.abs().max() <= 1.01 * bound, name
        if '.lora_B.' in name:
            assert not parameter.any(), name
