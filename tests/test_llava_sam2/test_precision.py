"""bf16 models: stored in bf16, trained in fp32, and computing nearly what fp32 models compute."""

import pytest
import torch
from tiny_release import save_weights

from llava_sam2.portable.network import Sa2VANetwork


@pytest.fixture(scope='module')
def batch(make_batch):
    return make_batch(dict(key=1, caption='a red dog'), dict(key=2, caption='A big cat. It sits.', describes=True))


@pytest.fixture(scope='module')
def weights(build_base, tmp_path_factory):
    """A folder of weights that bf16 holds exactly, so that models of both types begin with the same ones."""
    network = build_base(lora=None).network
    for parameter in network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    folder = tmp_path_factory.mktemp('weights')
    save_weights(network, folder)
    return str(folder)


@pytest.fixture(scope='module')
def build(build_base, weights):
    """``fp32``; ``mixed``: bf16 beside fp32 trainables; ``cast``: all bf16, as DeepSpeed makes it."""

    def build(kind: str, **options):
        options = dict(random_weights=False, network=None, pretrained=weights) | options
        model = build_base(**options, dtype='float32' if kind == 'fp32' else 'bfloat16')
        if kind == 'cast':
            model.bfloat16()
            model.restore_fp32_buffers()
        return model

    return build


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.trainables().values()), allow_unused=True)
    return {name: grad for name, grad in zip(model.trainables(), found) if grad is not None}


def cosine(one: dict, two: dict) -> float:
    one, two = (torch.cat([grads[name].double().flatten() for name in one]) for grads in (one, two))
    return float(torch.nn.functional.cosine_similarity(one, two, dim=0))


def test_frozen_weights_are_bf16_and_trained_ones_fp32(build, build_base):
    for model in (build('mixed'), build_base(dtype='bfloat16')):
        types = {p.requires_grad: p.dtype for p in model.parameters()}
        assert types == {False: torch.bfloat16, True: torch.float32}
        assert all(p.dtype == types[p.requires_grad] for p in model.parameters())
        assert all(buffer.dtype == torch.float32 for buffer in model.buffers() if buffer.is_floating_point())


def test_trained_weights_are_loaded_without_rounding(build_base, tmp_path):
    source = build_base(lora=None)
    save_weights(source.network, tmp_path)
    model = build_base(random_weights=False, network=None, pretrained=str(tmp_path), dtype='bfloat16')
    assert torch.equal(model.network.mlp1[1].weight, source.network.mlp1[1].weight)
    assert not torch.equal(source.network.mlp1[1].weight.bfloat16().float(), source.network.mlp1[1].weight)


@pytest.mark.parametrize('options', [dict(), dict(trainable=('vision_model', 'mlp1', 'language_model',
                                                             'text_hidden_fcs', 'image_encoder', 'mask_decoder'),
                                                  lora=None), dict(checkpointing=True)])
@pytest.mark.parametrize('kind', ['mixed', 'cast'])
def test_losses_and_gradients_are_near_those_of_fp32(build, batch, kind, options):
    expected, actual = build('fp32', **options).train(), build(kind, **options).train()
    losses = [model.supervised_losses(batch, 0) for model in (expected, actual)]
    for name, loss in losses[0].items():
        assert losses[1][name].dtype == torch.float32
        torch.testing.assert_close(losses[1][name], loss, rtol=0.03, atol=0.03)
    grads = [gradients(model, sum(parts.values())) for model, parts in zip((expected, actual), losses)]
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[1].items():
        assert torch.isfinite(grad).all() and grad.dtype == dict(actual.trainables())[name].dtype, name
    assert cosine(*grads) > 0.98


@pytest.mark.parametrize('kind', ['mixed', 'cast'])
def test_masks_are_near_those_of_fp32(build, batch, kind):
    masks = [build(each).eval().forced_masks(batch) for each in ('fp32', kind)]
    assert (masks[0] == masks[1]).float().mean() > 0.99


def test_a_cast_model_runs_without_autocast(build):
    for kind, enabled in (('fp32', False), ('mixed', True), ('cast', False)):
        with build(kind).precision():
            assert torch.is_autocast_enabled('cpu') == enabled
        assert not torch.is_autocast_enabled('cpu')


def test_buffers_are_restored_after_a_cast(build, weights):
    """Bit for bit those of a fresh model, and of a network that reads the folder as a user of an export does."""
    model, fresh = build('cast'), build('fp32')
    loaded = Sa2VANetwork(fresh.config)
    expected = dict(fresh.network.named_buffers())
    names = [name for name, buffer in expected.items() if buffer.is_floating_point()]
    assert any('inv_freq' in name for name in names) and any('positional_embedding' in name for name in names)
    for name in names:
        assert torch.equal(model.network.get_buffer(name), expected[name]), name
    rotary = [module for module in loaded.modules() if hasattr(module, 'rope_init_fn')]
    restored = [module for module in model.modules() if hasattr(module, 'rope_init_fn')]
    for module, reference in zip(restored, rotary, strict=True):
        assert torch.equal(module.inv_freq, reference.inv_freq)
        assert torch.equal(module.original_inv_freq, reference.inv_freq)
    model.bfloat16()
    assert not torch.equal(restored[0].inv_freq.float(), rotary[0].inv_freq)


def test_unknown_type_is_named(build_base):
    with pytest.raises(ValueError, match="model.dtype='float16' is unknown"):
        build_base(dtype='float16')
