"""Base weights from every source: training checkpoints with and without LoRA, InternVL and SAM 2, layers of them."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_release import released_state

from llava_sam2.portable.key_maps import released_to_training
from llava_sam2.weights.fingerprint import fingerprint
from llava_sam2.weights.loading import CheckpointError, load_pretrained
from llava_sam2.weights.sources import assemble, config_of_source, resolved

LORA = dict(r=2, alpha=4)
CONFIG = "model = dict(llm_lora=dict(type='peft.LoraConfig', r=2, lora_alpha=4))"
Q = 'language_model.model.layers.0.self_attn.q_proj'
EMBED, HEAD = 'language_model.model.embed_tokens.weight', 'language_model.lm_head.weight'


def assert_state(network, expected):
    state = released_state(network)
    assert state.keys() == expected.keys()
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []


def refused(network, source, message, **options):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(network, source, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# -- official training checkpoints ----------------------------------------------------------------------------------


def test_pth_without_lora(tensors, other, tmp_path):
    torch.save(dict(state_dict={released_to_training(name): tensor for name, tensor in tensors.items()}),
               tmp_path / 'iter_1.pth')
    load_pretrained(other, tmp_path / 'iter_1.pth')
    assert_state(other, tensors)


@pytest.mark.parametrize('stated', [None, LORA])
def test_pth_with_lora_is_merged(with_lora, other, tmp_path, stated):
    training, merged = with_lora
    assert f'mllm.model.language_model.base_model.model.{Q[15:]}.base_layer.bias' in training
    torch.save(dict(state_dict=training, meta={} if stated else dict(cfg=CONFIG)), tmp_path / 'x.pth')
    load_pretrained(other, dict(base=tmp_path / 'x.pth', lora=stated) if stated else tmp_path / 'x.pth')
    assert_state(other, merged)


def test_merging_is_done_in_fp32(with_lora, other, tmp_path):
    """In bf16 base + delta would round twice."""
    training, _ = with_lora
    training = {name: tensor.bfloat16() for name, tensor in training.items()}
    save_file(training, tmp_path / 'x.safetensors')
    load_pretrained(other, dict(base=tmp_path / 'x.safetensors', lora=LORA))
    place = f'mllm.model.language_model.base_model.model.{Q[15:]}'
    base, a, b = (training[f'{place}.{kind}.weight'] for kind in ('base_layer', 'lora_A.default', 'lora_B.default'))
    expected = (base.double() + 2.0 * b.double() @ a.double()).bfloat16().float()
    actual = released_state(other)[f'{Q}.weight']
    # Correctly rounded but where fp32 and exact arithmetic fall on two sides of a tie.
    assert (actual != expected).float().mean() < 0.01
    assert ((base + 2.0 * (b @ a)).float() != expected).float().mean() > 0.05


def test_lora_needs_its_scale(with_lora, other, tmp_path):
    training, _ = with_lora
    file = tmp_path / 'x.safetensors'
    save_file(training, file)
    refused(other, file, r'x.safetensors has LoRA tensors .*give lora=dict\(r=..., alpha=...\)')
    refused(other, dict(base=file, lora=dict(r=4, alpha=8)), 'has rank 2, but lora states r=4')
    torch.save(dict(state_dict=training, meta=dict(cfg=CONFIG)), tmp_path / 'x.pth')
    refused(other, dict(base=tmp_path / 'x.pth', lora=dict(r=2, alpha=8)), 'contradicts the config inside .*x.pth')


@pytest.mark.parametrize('change, message', [
    (lambda t, p: t.pop(f'{p}.lora_B.default.weight'), 'lora_A.default.weight without its other half'),
    (lambda t, p: t.pop(f'{p}.base_layer.weight'), f'has LoRA for {Q}.weight, which .* does not hold'),
    (lambda t, p: t.update({f'{p}.lora_A.default.weight': torch.ones(2, 5)}), 'not fit .* trained on another base'),
    (lambda t, p: t.update({'mllm.model.mlp1.1.lora_A.default.weight': torch.ones(2, 5)}), 'LoRA of another part'),
    (lambda t, p: t.update({f'{p}.weight': torch.ones(32, 32)}), f'holds {Q}.weight twice'),
])
def test_incomplete_lora_is_refused(with_lora, other, tmp_path, change, message):
    training, _ = with_lora
    change(training, f'mllm.model.language_model.base_model.model.{Q[15:]}')
    save_file(training, tmp_path / 'x.safetensors')
    refused(other, dict(base=tmp_path / 'x.safetensors', lora=LORA), message)


# -- trained tensors on a base --------------------------------------------------------------------------------------


@pytest.fixture
def official_trained(with_lora, tmp_path):
    """What the official training code saves: the trained tensors only, 647 in the 4B model."""
    kept = ('.lora_', 'mlp1.', 'text_hidden_fcs.', 'mask_decoder', 'embed_tokens.', 'lm_head.')
    training, merged = with_lora
    state = {name: tensor for name, tensor in training.items() if any(part in name for part in kept)}
    torch.save(dict(state_dict=state, meta=dict(cfg=CONFIG, iter=9)), tmp_path / 'iter_9.pth')
    return tmp_path / 'iter_9.pth', merged


def test_official_trained_tensors_on_internvl_and_sam2(official_trained, internvl, other, token_ids):
    file, merged = official_trained
    report = load_pretrained(other, dict(**internvl, trained=file), token_ids=token_ids)
    assert_state(other, merged)
    assert report.drawn == [] and str(file) in report.source
    refused(other, file, r'does not hold\. .* trained tensors only: give the weights it was trained from too, '
                         r'pretrained=dict\(base=')


def own_checkpoint(model, path, weights, config=''):
    """As the engine writes it without DeepSpeed."""
    state = {f'base.{name}': parameter.detach() for name, parameter in model.trainables().items()}
    run = dict(weights=weights, config=config or 'model = dict(base=dict(lora=dict(r=2, alpha=4, dropout=0.1)))')
    torch.save(dict(state_dict=state, meta=dict(iter=5), message_hub=dict(runtime_info=dict(run=run))), path)


def own_folder(model, path, weights):
    """As the engine writes it under DeepSpeed."""
    path.mkdir()
    save_file({name: parameter.detach() for name, parameter in model.trainables().items()},
              path / 'trainables.safetensors')
    run = dict(weights=weights, config='model = dict(base=dict(lora=dict(r=2, alpha=4)))')
    (path / 'state.json').write_text(json.dumps(dict(step=5, ema_updates=0, run=run)))


@pytest.fixture
def trained(build_base, folder, sizes):
    """A model trained from the released folder."""
    model = build_base(random_weights=False, network=sizes, pretrained=str(folder))
    generator = torch.Generator().manual_seed(5)
    for parameter in model.trainables().values():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize('write', [own_checkpoint, own_folder])
def test_own_checkpoint_on_its_base(trained, folder, other, tmp_path, write):
    write(trained, tmp_path / 'iter_5.pth', trained.fingerprint)
    report = load_pretrained(other, dict(base=folder, trained=tmp_path / 'iter_5.pth'))
    assert_state(other, released_state(trained.network))
    assert report.fingerprint not in ('', trained.fingerprint)
    again = load_pretrained(other, dict(base=folder, trained=tmp_path / 'iter_5.pth'))
    assert again.fingerprint == report.fingerprint


@pytest.mark.parametrize('write', [own_checkpoint, own_folder])
def test_own_checkpoint_needs_its_own_base(trained, tensors, other, tmp_path, write):
    path = tmp_path / 'iter_5.pth'
    write(trained, path, trained.fingerprint)
    refused(other, path, r'give the weights it was trained from too, pretrained=dict\(base=\.\.\., trained=')
    tensors['mlp1.1.bias'] += 1e-3  # overlaid by the trained one, but LoRA was trained above it
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, dict(base=tmp_path / 'x.safetensors', trained=path),
            f'trained from weights with fingerprint {trained.fingerprint[:12]}, but those of .*x.safetensors have')


def test_own_checkpoint_of_random_weights(build_base, folder, other, tmp_path):
    """It has no base that could be given; if all was trained or saved it needs none."""
    model = build_base()
    own_checkpoint(model, tmp_path / 'part.pth', 'random weights')
    refused(other, dict(base=folder, trained=tmp_path / 'part.pth'), 'trained from random weights, which no folder')
    state = {f'base.{name}': tensor for name, tensor in model.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg='base = dict(lora=dict(r=2, alpha=4))')), tmp_path / 'all.pth')
    load_pretrained(other, tmp_path / 'all.pth')
    assert_state(other, released_state(model.network))


def test_a_part_of_a_joined_tensor_is_refused(network, tmp_path):
    state = {f'network.{name}': tensor for name, tensor in network.state_dict().items() if '.q_proj.' not in name}
    torch.save(state, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x.pth holds a part of vision_model\.\S+qkv'):
        assemble(tmp_path / 'x.pth')


# -- InternVL and SAM 2 ---------------------------------------------------------------------------------------------


def test_internvl_and_sam2_need_training_of_rows_and_head(internvl, other, token_ids):
    said = r'no \[SEG\] head and no rows .*text_hidden_fcs\.0.*train_token_rows=True .*start from a Sa2VA folder'
    refused(other, internvl, said, token_ids=token_ids)
    refused(other, internvl, said)


def test_padded_rows_are_untrained_all_the_same(internvl, tensors, other, token_ids):
    """A matrix with spare rows has some for the added tokens, but nobody trained them."""
    file = internvl['mllm'] / 'model.safetensors'
    mllm = {name: tensor for name, tensor in tensors.items()
            if not name.startswith(('grounding_encoder.', 'text_hidden_fcs.'))}
    save_file(mllm, file)
    refused(other, internvl, r'no rows for the added tokens \(language_model\.model\.embed', token_ids=token_ids)
    load_pretrained(other, internvl, token_ids=token_ids, train_token_rows=True)
    rows = released_state(other)[EMBED][list(token_ids.values())]
    torch.testing.assert_close(rows, tensors[EMBED][: min(token_ids.values())].mean(0).expand(5, -1))


def test_rows_begin_at_the_mean_and_the_rest_is_loaded(internvl, tensors, memory, other, token_ids):
    before = {name: tensor.clone() for name, tensor in released_state(other).items()}
    report = load_pretrained(other, internvl, token_ids=token_ids, train_token_rows=True)
    first = min(token_ids.values())
    assert {EMBED, HEAD} < set(report.drawn) and len(report.drawn) == 6 and report.carried == len(memory)
    for name, tensor in released_state(other).items():
        if name in (EMBED, HEAD):
            assert torch.equal(tensor[:first], tensors[name][:first])
            mean = tensors[name][:first].double().mean(0).float()
            torch.testing.assert_close(tensor[first:], mean.expand(len(tensor) - first, -1), rtol=0, atol=1e-6)
        else:
            assert torch.equal(tensor, before[name] if name.startswith('text_hidden_fcs.') else tensors[name]), name


def test_pair_with_a_wrong_half_is_refused(internvl, folder, other, tmp_path):
    refused(other, dict(internvl, mllm=folder), 'both hold grounding_encoder.*Sa2VA folder is given alone')
    sam2 = torch.load(internvl['sam2'])['model']
    # SAM 2.1 has a tensor that the models at hand do not know.
    torch.save(dict(model=sam2 | dict(no_obj_embed_spatial=torch.zeros(1, 64))), tmp_path / 'sam2.1.pt')
    for options in (dict(), dict(train_token_rows=True, token_ids={'[SEG]': 600})):
        with pytest.raises(CheckpointError, match='no_obj_embed_spatial|no .SEG. head'):
            load_pretrained(other, dict(internvl, sam2=tmp_path / 'sam2.1.pt'), **options)
    refused(other, dict(internvl, sam2=tmp_path / 'sam2.1.pt'), r'no_obj_embed_spatial\) in sam2.1.pt',
            parts=['vision_model', 'mlp1', 'grounding_encoder'])


# -- the source as it stands in a config ----------------------------------------------------------------------------


@pytest.mark.parametrize('source', [dict(mllm='a'), dict(trained='a'), dict(base='a', sam2='b'), dict(path='a'), {}])
def test_unknown_combinations_are_refused(source):
    for function in (assemble, resolved):
        with pytest.raises(ValueError, match=r'use a path, dict\(base=path\) or dict\(mllm=folder, sam2=file\)'):
            function(source)


def test_relative_paths_are_read_against_the_checkout(checkout, tmp_path):
    assert resolved('assets/tiny') == dict(base=checkout / 'assets' / 'tiny')
    assert resolved(dict(base=str(tmp_path), trained='x.pth', lora=LORA)) == dict(
        base=tmp_path, trained=checkout / 'x.pth', lora=LORA)


def test_config_of_every_source(folder, internvl, sizes, token_ids, tmp_path):
    assert config_of_source(folder, None).llm_config.vocab_size == 640
    assert config_of_source(internvl, None).llm_config.vocab_size == min(token_ids.values())
    assert config_of_source(internvl, None).vision_config.attention_bias
    assert config_of_source(internvl, dict(llm_config=dict(vocab_size=700))).llm_config.vocab_size == 700
    with pytest.raises(ValueError, match='model.network.llm_config.hidden_size'):
        config_of_source(internvl, dict(llm_config=dict(hidden_size=64)))
    with pytest.raises(ValueError, match='sam2.pt does not say how large .* state all sizes in model.network'):
        config_of_source(internvl['sam2'], None)
    assert config_of_source(internvl['sam2'], sizes).image_size == 112
    with pytest.raises(FileNotFoundError, match='no config.json'):
        config_of_source(tmp_path, None)


def test_fingerprint_of_a_pair_is_of_its_files(internvl, other, token_ids):
    report = load_pretrained(other, internvl, token_ids=token_ids, train_token_rows=True)
    assembly = assemble(internvl)
    assert report.fingerprint == fingerprint({name: stored.tensor() for name, stored in assembly.tensors.items()})
