"""Weights in and out: what goes in comes out, and nothing is loaded in part."""

import json
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_release import released_state, save_weights

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.key_maps import is_carried, released_to_training
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.video_memory import video_memory_shapes
from llava_sam2.weights import loading
from llava_sam2.weights.export import release_of
from llava_sam2.weights.fingerprint import CACHE, fingerprint
from llava_sam2.weights.loading import CheckpointError, inspect, load_pretrained, released_shapes
from llava_sam2.weights.sources import assemble

QKV = 'vision_model.encoder.layers.0.attn.qkv.weight'
EMBED, HEAD = 'language_model.model.embed_tokens.weight', 'language_model.lm_head.weight'
MEMORY = 'grounding_encoder.sam2_model.no_obj_ptr'


def copies(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal_states(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def refused(network, source, message, **options):
    before = copies(network)
    with pytest.raises(CheckpointError, match=message) as error:
        load_pretrained(network, source, **options)
    assert_equal_states(network.state_dict(), before)
    assert not hasattr(network, 'carried')
    return str(error.value)


# -- whole models ---------------------------------------------------------------------------------------------------


def test_round_trip_is_bit_equal(network, folder, tensors, other, tmp_path):
    report = load_pretrained(other, folder)
    assert_equal_states(other.state_dict(), network.state_dict())
    assert sum(report.found.values()) + report.carried == len(tensors) and set(report.found) == set(loading.PARTS)
    assert not (report.missing or report.unexpected or report.reshaped or report.drawn)
    assert 'mlp1 6, ' in str(report) and f'carried through {report.carried}' in str(report)
    save_weights(other, tmp_path)
    assert_equal_states(load_file(tmp_path / 'model.safetensors'), tensors)
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
    shards = [sorted(names)[::2], sorted(names)[1::2]]
    weight_map = {}
    for index, shard in enumerate(shards):
        save_file({name: tensors[names[name]] for name in shard}, tmp_path / f'shard{index}.safetensors')
        weight_map |= {name: f'shard{index}.safetensors' for name in shard}
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=weight_map)))
    load_pretrained(other, tmp_path)
    assert_equal_states(other.state_dict(), network.state_dict())
    (tmp_path / 'shard1.safetensors').unlink()
    refused(Sa2VANetwork(other.config), tmp_path, 'shard1.safetensors is missing')


def test_names_and_shapes_of_the_4b_model_and_back(released_4b, network_4b):
    assert released_shapes(network_4b) | video_memory_shapes() == released_4b and len(released_4b) == 1685
    network_4b.carried = {name: torch.empty(shape, device='meta') for name, shape in video_memory_shapes().items()}
    assert {name: tuple(planned.shape) for name, planned in release_of(network_4b).items()} == released_4b


# -- refusals -------------------------------------------------------------------------------------------------------


def test_missing_tensor_is_refused(tensors, other, tmp_path):
    del tensors[QKV]
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', f'x.safetensors .* 1 tensors of vision_model are missing: {QKV}')


def test_renamed_tensor_is_refused(tensors, other, tmp_path):
    tensors['mlp1.9.weight'] = tensors.pop('mlp1.1.weight')
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors',
            r'1 tensors of mlp1 are missing: mlp1\.1\.weight; 1 tensors of mlp1 are not expected: mlp1\.9\.weight in x')


def test_tensor_of_no_part_is_refused(tensors, other, tmp_path):
    save_file(tensors | {'mlp2.0.weight': torch.zeros(2)}, tmp_path / 'x.safetensors')
    for parts in (tuple(loading.PARTS), ['mlp1']):
        refused(other, tmp_path / 'x.safetensors', r'1 tensors of other are not expected: mlp2\.0\.weight', parts=parts)


@pytest.mark.parametrize('change', [lambda t: t[1:], lambda t: t.T, lambda t: t.flatten()])
def test_wrong_shape_is_refused(tensors, other, tmp_path, change):
    # Transposed and flattened it has as many numbers as expected.
    assert tensors[QKV].shape[0] != tensors[QKV].shape[1]
    tensors[QKV] = change(tensors[QKV]).contiguous()
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors',
            f'1 tensors of vision_model have another shape: {QKV} .*, expected .*x.safetensors')


def test_whole_numbers_are_no_weights(tensors, other, tmp_path):
    tensors[QKV] = tensors[QKV].to(torch.int8)
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', f'{QKV} is of integers, expected floating-point')


def test_late_fault_changes_nothing(tensors, other, tmp_path):
    """The last tensor by name is wrong; the first must not have been copied."""
    last = max(tensors)
    tensors[last] = tensors[last][..., :-1].contiguous()
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', last)


@pytest.mark.parametrize('source', ['nowhere', 'nowhere.pth'])
def test_missing_source_is_refused(other, tmp_path, source):
    refused(other, tmp_path / source, 'no weights at .*nowhere')


def test_only_the_named_parts_are_loaded(network, folder, other):
    before = copies(other)
    report = load_pretrained(other, folder, parts=['mlp1', 'vision_model'])
    assert report.found.keys() == {'mlp1', 'vision_model'}
    for name, tensor in other.state_dict().items():
        source = network.state_dict() if name.startswith(('mlp1.', 'vision_model.')) else before
        assert torch.equal(tensor, source[name]), name
    with pytest.raises(ValueError, match=r"parts \['mlp2'\] are unknown"):
        load_pretrained(other, folder, parts=['mlp2'])


# -- video memory ---------------------------------------------------------------------------------------------------


def test_video_memory_is_carried_through(folder, tensors, memory, other, tmp_path):
    assert load_pretrained(other, folder).carried == len(memory)
    assert_equal_states(other.carried, memory)
    load_pretrained(other, folder, parts=['mlp1'])  # another part from elsewhere does not drop it
    assert_equal_states(other.carried, memory)
    save_file({name: tensor for name, tensor in tensors.items() if not is_carried(name)}, tmp_path / 'x.safetensors')
    assert load_pretrained(other, tmp_path / 'x.safetensors').carried == 0 and other.carried == {}


@pytest.mark.parametrize('change, message', [
    (lambda t: t.pop(MEMORY), f'1 tensors of grounding_encoder are missing: {MEMORY}'),
    (lambda t: t.update({MEMORY: torch.zeros(1, 31)}), f'have another shape: {MEMORY} .1, 31., expected .1, 32.'),
    (lambda t: t.update({MEMORY.replace('no_obj_ptr', 'obj_ptr_proj.layers.7.bias'): torch.zeros(32)}),
     r'are not expected: \S+obj_ptr_proj\.layers\.7\.bias'),
])
def test_every_tensor_of_the_video_memory_counts(tensors, other, tmp_path, change, message):
    change(tensors)
    save_file(tensors, tmp_path / 'x.safetensors')
    refused(other, tmp_path / 'x.safetensors', message)


# -- rows of the added tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', [EMBED, HEAD])
def test_zero_rows_of_added_tokens_are_refused(tensors, other, token_ids, tmp_path, name):
    tensors[name][token_ids['<vp>']] = 0
    save_file(tensors, tmp_path / 'x.safetensors')
    said = refused(other, tmp_path / 'x.safetensors', f'{name} has only zeros in row .*, which is <vp>',
                   token_ids=token_ids)
    assert 'x.safetensors' in said and 'same folder of a Sa2VA model' in said
    load_pretrained(other, tmp_path / 'x.safetensors')  # without a tokenizer nobody knows


def test_rows_beyond_the_matrix_are_refused(folder, other, token_ids):
    refused(other, folder, f'{EMBED} has 640 rows, and .SEG. is token 640', token_ids={**token_ids, '[SEG]': 640})


# -- memory and fingerprint -----------------------------------------------------------------------------------------


def test_tensors_are_read_one_by_one_and_once(folder, other, monkeypatch, tensors):
    assembled, alive, count = assemble(folder), [], 0

    def watched(stored):
        def read():
            nonlocal count
            count += 1
            assert [name for name, reference in alive if reference() is not None] == []
            tensor = stored.tensor().clone()
            alive.append((stored.name, weakref.ref(tensor)))
            return tensor

        return replace(stored, tensor=read)

    assembled.tensors = {name: watched(stored) for name, stored in assembled.tensors.items()}
    monkeypatch.setattr(loading, 'assemble', lambda *args: assembled)
    load_pretrained(other, folder)
    assert count == len(tensors)


def test_fingerprint_is_of_all_tensors_and_cached(folder, tensors, other, monkeypatch):
    (folder / CACHE).unlink(missing_ok=True)
    expected = fingerprint(tensors)
    assert load_pretrained(other, folder).fingerprint == expected
    assert list(json.loads((folder / CACHE).read_text()).values()) == [expected]
    monkeypatch.setattr(loading, 'Fingerprint', None)  # it is not computed again
    assert load_pretrained(other, folder).fingerprint == expected
    assert loading.fingerprint_of(assemble(folder)) == expected


def test_fingerprint_of_some_parts_is_their_own(folder, tensors, other):
    expected = fingerprint({name: tensor for name, tensor in tensors.items() if name.startswith('mlp1.')})
    assert load_pretrained(other, folder, parts=['mlp1']).fingerprint == expected
    assert expected not in (folder / CACHE).read_text() if (folder / CACHE).is_file() else True


def test_inspection_reads_nothing_and_works_on_meta(folder, sizes, monkeypatch):
    with torch.device('meta'):
        network = Sa2VANetwork(Sa2VAConfig(**sizes))
    assembly = assemble(folder)
    assembly.tensors = {name: replace(stored, tensor=None) for name, stored in assembly.tensors.items()}
    report = inspect(network, assembly)
    assert report.faults() == '' and sum(report.found.values()) + report.carried == len(assembly.tensors)


# -- LoRA -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_merged_lora_computes_what_lora_computed(build_base, tmp_path):
    model = build_base().eval()
    inputs = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    expected = model.network.language_model.model(inputs_embeds=inputs).last_hidden_state
    save_weights(model.network, tmp_path)
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
