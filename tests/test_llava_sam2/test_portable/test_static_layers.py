"""Which networks are decoded statically, and that a kept decoder follows what becomes of its network."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model

from llava_sam2.portable.generation import greedy_decode
from llava_sam2.portable.rows import caption_row, chat_row
from llava_sam2.portable.static_decoding import KeptDecoder, StaticDecoder
from llava_sam2.portable.static_layers import obstacle


@pytest.fixture(scope='module')
def model(build_base):
    return build_base(lora=None).eval()


@pytest.fixture(scope='module')
def rows(vocabulary):
    regions = [torch.arange(16) < cells for cells in (3, 11)]
    return [caption_row(vocabulary, 16, index, region, []) for index, region in enumerate(regions)] + [
        chat_row(vocabulary, 'What is it, please?')]


@pytest.fixture(scope='module')
def features():
    return torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))


def said(decoded):
    return [(one.ids, one.ended, one.said) for one in decoded]


@pytest.mark.parametrize('scaling', ['dynamic', 'yarn', 'linear'])
def test_kinds_of_positions(build_base, network_sizes, rows, features, scaling):
    """Dynamic ones keep the frequencies of a longer text that was read before."""
    rope = dict(type=scaling, factor=8.0)
    llm = network_sizes['llm_config'] | dict(max_position_embeddings=96, rope_scaling=rope)
    model = build_base(network=network_sizes | dict(llm_config=llm), lora=None).eval()
    full = 96 - max(len(row.input_ids) for row in rows) - model.vocabulary.num_terminator_tokens
    assert full > 9

    def plainly(length):
        return said(greedy_decode(model.network, model.pad(rows, 'left'), features, model.vocabulary, length))

    plain = plainly(9)
    plainly(100)
    decoder = StaticDecoder(model.network, model.vocabulary)
    assert said(decoder.decode(model.pad(rows), features, 9)) == plain
    assert said(decoder.decode(model.pad(rows), features, full)) == plainly(full)
    with pytest.raises(ValueError, match='has 96 positions'):
        decoder.decode(model.pad(rows), features, full + 1)


def split(network):
    network.language_model.lm_head.to('meta')


def hooked(network):
    network.language_model.model.layers[1].mlp.register_forward_hook(lambda *_: None)


def accelerated(network):
    layer = network.language_model.model.layers[0]
    layer.forward = layer.forward  # as accelerate does, which moves weights before


def quantised(network):
    class Linear4bit(torch.nn.Linear):
        pass

    network.language_model.model.layers[0].mlp.up_proj = Linear4bit(32, 48, bias=False)


def quantised_below_lora(network):
    quantised(network)
    network.language_model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    adapted(network, target_modules=['up_proj'])


def mixed(network):
    network.language_model.model.layers[0].mlp.up_proj.bfloat16()


def adapted(network, **options):
    return get_peft_model(network.language_model, LoraConfig(r=2, **dict(target_modules=['q_proj']) | options))


@pytest.mark.parametrize('change, reason', [
    (split, 'one device'), (hooked, 'layers.1.mlp has a hook'), (accelerated, 'layers.0 has a hook'),
    (quantised, 'Linear4bit'), (quantised_below_lora, 'Linear4bit'), (mixed, 'several types'),
    (lambda network: adapted(network, use_dora=True), 'another adapter'),
    (lambda network: adapted(network, lora_bias=True), 'another adapter'),
    (lambda network: adapted(network).add_adapter('other', LoraConfig(r=2, target_modules=['q_proj'])), 'another adap'),
    (lambda network: adapted(network).merge_adapter(), 'another adapter'),
    (lambda network: adapted(network).base_model.disable_adapter_layers(), 'another adapter'),
    (lambda network: adapted(network, target_modules=['lm_head']), 'rows of the embedding or of the head'),
    (lambda network: vars(network.language_model.config).update(hidden_act='gelu'), 'gelu'),
    (lambda network: vars(network.language_model.config).update(layer_types=['sliding_attention'] * 2), 'sliding'),
    (lambda network: vars(network.language_model.model.rotary_emb).update(rope_type='longrope'), 'depend on the le'),
])
def test_networks_that_are_not_called_as_they_stand(build_base, change, reason):
    model = build_base(lora=None).eval()
    assert obstacle(model.network, hooks=True) is None
    kept = KeptDecoder()
    assert kept.of(model.network, model.vocabulary) is not None
    change(model.network)
    assert reason in obstacle(model.network, hooks=True)
    assert kept.of(model.network, model.vocabulary) is None
    assert (obstacle(model.network) is None) == ('has a hook' in reason)


def other(parameter):
    parameter.data = parameter.data + torch.randn(parameter.shape)  # at another address


CHANGES = dict(
    weights_in_place=lambda network: network.load_state_dict(
        {name: 0.7 * tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in network.state_dict().items()}),
    weights_assigned=lambda network: network.load_state_dict(
        {name: 0.7 * tensor for name, tensor in network.state_dict().items()}, assign=True),
    another_type=lambda network: network.double(),
    another_bias=lambda network: other(network.language_model.model.layers[0].self_attn.v_proj.get_parameter(
        'base_layer.bias' if hasattr(network.language_model.model.layers[0].self_attn.v_proj, 'lora_A') else 'bias')),
    another_norm=lambda network: other(network.language_model.model.norm.weight),
    another_embedding=lambda network: other(network.language_model.model.embed_tokens.weight),
    a_new_layer=lambda network: network.language_model.model.layers[1].mlp.__setattr__(
        'up_proj', torch.nn.Linear(32, 48, bias=False)),
    lora=lambda network: [torch.nn.init.normal_(p, std=0.5) for name, p in (
        network if any('lora_B' in name for name, _ in network.named_parameters()) else
        adapted(network, target_modules=['q_proj', 'down_proj'])).named_parameters() if 'lora_B' in name],
    rotated_layers=lambda network: network.language_model.model.layers.insert(
        0, network.language_model.model.layers.pop(1)),
)


@torch.no_grad()
@pytest.mark.parametrize('lora', ['none', 'some', 'all'])
@pytest.mark.parametrize('change', CHANGES)
def test_a_kept_decoder_follows_its_network(build_base, rows, features, change, lora):
    model, kept = build_base(lora=dict(r=2, alpha=4) if lora == 'all' else None).eval(), KeptDecoder()
    if lora == 'some':
        adapted(model.network)
        model.eval()
    network, vocabulary = model.network, model.vocabulary

    def answers():
        plain = greedy_decode(network, model.pad(rows, 'left'), features, vocabulary, 9)
        static = kept.of(network, vocabulary).decode(model.pad(rows), features, 9)
        assert said(static) == said(plain)
        return said(plain)

    before, known = answers(), kept.of(network, vocabulary)
    assert kept.of(network, vocabulary) is known
    with torch.random.fork_rng():
        torch.manual_seed(1)
        CHANGES[change](network)
    network.eval()
    after = answers()
    assert change == 'another_type' or after != before, 'else nothing is shown'
    assert kept.of(network, copy.copy(vocabulary)) is not known


def test_a_kept_decoder_is_for_evaluation(model):
    kept = KeptDecoder()
    assert kept.of(model.network, model.vocabulary) is not None
    with torch.autocast('cpu'):
        assert kept.of(model.network, model.vocabulary) is None
    model.network.language_model.train()
    try:
        assert kept.of(model.network, model.vocabulary) is None
    finally:
        model.network.language_model.eval()


def test_without_lora_it_holds_no_weights_and_no_network_alive(build_base, rows, features):
    model, kept = build_base(lora=None).eval(), KeptDecoder(rows=3)
    kept.of(model.network, model.vocabulary).decode(model.pad(rows), features, 2)
    addresses = {parameter.untyped_storage().data_ptr() for parameter in model.network.parameters()}
    gc.collect()
    held = [each for each in vars(kept._decoder).values() if isinstance(each, torch.Tensor)]
    assert held and all(layer.copies is None for layer in kept._decoder.layers)
    for layer in kept._decoder.layers:
        flat = [tensor for part in layer.weights for tensor in (part if isinstance(part, tuple) else (part, ))]
        assert {tensor.untyped_storage().data_ptr() for tensor in flat} <= addresses
    weight, network = (weakref.ref(each) for each in (model.network.mlp1[1].weight, model.network))
    gc.disable()
    try:
        del model
        assert weight() is None and network() is None
    finally:
        gc.enable()


def test_copies_of_a_kept_decoder_are_empty(model):
    kept = KeptDecoder(rows=5)
    kept.of(model.network, model.vocabulary)
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept)), copy.copy(kept)):
        assert other.rows == 5 and other._decoder is None
