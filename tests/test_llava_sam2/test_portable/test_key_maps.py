"""Names of tensors, against the list of the released 4B model."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from tiny_release import save_weights

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.key_maps import is_carried, released_table, released_to_training, training_to_released
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.weights.loading import load_pretrained


def test_names_and_shapes_of_the_4b_model(released_4b, network_4b):
    state = network_4b.state_dict()
    shapes = {}
    for name, parts in released_table({own: tensor.shape for own, tensor in state.items()}).items():
        covered = sorted({(part.rows.start, part.rows.stop) for part in parts})
        assert [start for start, _ in covered] == [0] + [stop for _, stop in covered[:-1]], f'{name} has gaps'
        assert all(part.own_rows.stop - part.own_rows.start == part.rows.stop - part.rows.start for part in parts)
        shapes[name] = (covered[-1][1], *state[parts[0].own].shape[1:])
    assert shapes == {name: shape for name, shape in released_4b.items() if not is_carried(name)}


def test_training_names_and_back(released_4b):
    for name in released_4b:
        assert training_to_released(released_to_training(name)) == name
    assert len({released_to_training(name) for name in released_4b}) == len(released_4b)


_SAM2 = 'grounding_encoder.sam2_model.'


@pytest.mark.parametrize('training, released', [
    ('mllm.model.vision_model.embeddings.class_embedding', 'vision_model.embeddings.class_embedding'),
    ('mllm.model.mlp1.0.weight', 'mlp1.0.weight'),
    ('mllm.model.language_model.base_model.model.lm_head.weight', 'language_model.lm_head.weight'),
    ('mllm.model.language_model.base_model.model.model.layers.0.mlp.up_proj.base_layer.weight',
     'language_model.model.layers.0.mlp.up_proj.weight'),
    ('mllm.model.language_model.model.layers.0.mlp.up_proj.weight', 'language_model.model.layers.0.mlp.up_proj.weight'),
    (_SAM2 + 'memory_encoder.fuser.layers.1.gamma', _SAM2 + 'memory_encoder.fuser.layers.1.g_weight'),
    ('text_hidden_fcs.0.bias', 'text_hidden_fcs.0.bias'),
])
def test_official_training_names(training, released):
    assert training_to_released(training) == released
    assert 'base_model' in training or released_to_training(released) == training


def test_lora_stays_out_of_the_table_and_base_layers_in_it():
    own = 'language_model.model.layers.0.mlp.up_proj.{}.weight'
    table = released_table({own.format('base_layer'): (8, 4), own.format('lora_A.default'): (2, 4)})
    assert list(table) == ['language_model.model.layers.0.mlp.up_proj.weight']


# Our name and the official one of every tensor, written down once more by hand: * is the number of a layer, |n the n-th
# third of the rows, and .weight or .bias follows on both sides alike.
VISION = """
embeddings.cls_token                        embeddings.class_embedding
embeddings.position_embeddings              embeddings.position_embedding
embeddings.patch_embeddings.projection      embeddings.patch_embedding
encoder.layer.*.lambda_1                    encoder.layers.*.ls1
encoder.layer.*.lambda_2                    encoder.layers.*.ls2
encoder.layer.*.attention.q_proj            encoder.layers.*.attn.qkv|0
encoder.layer.*.attention.k_proj            encoder.layers.*.attn.qkv|1
encoder.layer.*.attention.v_proj            encoder.layers.*.attn.qkv|2
encoder.layer.*.attention.projection_layer  encoder.layers.*.attn.proj
encoder.layer.*.mlp.fc1                     encoder.layers.*.mlp.fc1
encoder.layer.*.mlp.fc2                     encoder.layers.*.mlp.fc2
encoder.layer.*.layernorm_before            encoder.layers.*.norm1
encoder.layer.*.layernorm_after             encoder.layers.*.norm2
"""
GROUNDING = """
no_memory_embedding                                     no_mem_embed
shared_image_embedding.positional_embedding             sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
prompt_encoder.shared_embedding.positional_embedding    sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
vision_encoder.backbone.pos_embed                       image_encoder.trunk.pos_embed
vision_encoder.backbone.pos_embed_window                image_encoder.trunk.pos_embed_window
vision_encoder.backbone.patch_embed.projection          image_encoder.trunk.patch_embed.proj
vision_encoder.backbone.blocks.*.layer_norm1            image_encoder.trunk.blocks.*.norm1
vision_encoder.backbone.blocks.*.layer_norm2            image_encoder.trunk.blocks.*.norm2
vision_encoder.backbone.blocks.*.attn.qkv               image_encoder.trunk.blocks.*.attn.qkv
vision_encoder.backbone.blocks.*.attn.proj              image_encoder.trunk.blocks.*.attn.proj
vision_encoder.backbone.blocks.*.mlp.proj_in            image_encoder.trunk.blocks.*.mlp.layers.0
vision_encoder.backbone.blocks.*.mlp.proj_out           image_encoder.trunk.blocks.*.mlp.layers.1
vision_encoder.backbone.blocks.*.proj                   image_encoder.trunk.blocks.*.proj
vision_encoder.neck.convs.*                             image_encoder.neck.convs.*.conv
prompt_encoder.mask_embed.conv1                         sam_prompt_encoder.mask_downscaling.0
prompt_encoder.mask_embed.layer_norm1                   sam_prompt_encoder.mask_downscaling.1
prompt_encoder.mask_embed.conv2                         sam_prompt_encoder.mask_downscaling.3
prompt_encoder.mask_embed.layer_norm2                   sam_prompt_encoder.mask_downscaling.4
prompt_encoder.mask_embed.conv3                         sam_prompt_encoder.mask_downscaling.6
prompt_encoder.no_mask_embed                            sam_prompt_encoder.no_mask_embed
prompt_encoder.not_a_point_embed                        sam_prompt_encoder.not_a_point_embed
mask_decoder.iou_token                                  sam_mask_decoder.iou_token
mask_decoder.mask_tokens                                sam_mask_decoder.mask_tokens
mask_decoder.obj_score_token                            sam_mask_decoder.obj_score_token
mask_decoder.conv_s0                                    sam_mask_decoder.conv_s0
mask_decoder.conv_s1                                    sam_mask_decoder.conv_s1
mask_decoder.upscale_conv1                              sam_mask_decoder.output_upscaling.0
mask_decoder.upscale_layer_norm                         sam_mask_decoder.output_upscaling.1
mask_decoder.upscale_conv2                              sam_mask_decoder.output_upscaling.3
mask_decoder.transformer.layer_norm_final_attn          sam_mask_decoder.transformer.norm_final_attn
mask_decoder.transformer.layers.*.layer_norm1           sam_mask_decoder.transformer.layers.*.norm1
mask_decoder.transformer.layers.*.layer_norm2           sam_mask_decoder.transformer.layers.*.norm2
mask_decoder.transformer.layers.*.layer_norm3           sam_mask_decoder.transformer.layers.*.norm3
mask_decoder.transformer.layers.*.layer_norm4           sam_mask_decoder.transformer.layers.*.norm4
mask_decoder.transformer.layers.*.mlp.proj_in           sam_mask_decoder.transformer.layers.*.mlp.layers.0
mask_decoder.transformer.layers.*.mlp.proj_out          sam_mask_decoder.transformer.layers.*.mlp.layers.1
mask_decoder.output_hypernetworks_mlps.*.proj_in        sam_mask_decoder.output_hypernetworks_mlps.*.layers.0
mask_decoder.output_hypernetworks_mlps.*.layers.0       sam_mask_decoder.output_hypernetworks_mlps.*.layers.1
mask_decoder.output_hypernetworks_mlps.*.proj_out       sam_mask_decoder.output_hypernetworks_mlps.*.layers.2
"""
ATTENTIONS = ('layers.*.self_attn', 'layers.*.cross_attn_token_to_image', 'layers.*.cross_attn_image_to_token',
              'final_attn_token_to_image')


def official_table() -> dict[str, str]:
    table = {}
    for part, official, text in (('vision_model', 'vision_model', VISION),
                                 ('grounding_encoder', _SAM2.rstrip('.'), GROUNDING)):
        table |= {f'{part}.{own}': f'{official}.{name}' for own, name in map(str.split, text.strip().splitlines())}
    decoder = 'grounding_encoder.mask_decoder.{}', _SAM2 + 'sam_mask_decoder.{}'
    for place in ATTENTIONS:
        for own, name in (('q_proj', 'q_proj'), ('k_proj', 'k_proj'), ('v_proj', 'v_proj'), ('o_proj', 'out_proj')):
            table[decoder[0].format(f'transformer.{place}.{own}')] = decoder[1].format(f'transformer.{place}.{name}')
    for head in ('iou_prediction_head', 'pred_obj_score_head'):
        for own, name in (('proj_in', '0'), ('layers.0', '1'), ('proj_out', '2')):
            table[decoder[0].format(f'{head}.{own}')] = decoder[1].format(f'{head}.layers.{name}')
    return table


def by_hand(own: str, table: dict[str, str]) -> tuple[str, str, int]:
    """The row of the table, the official name, and which third of it (0 for the first or the whole)."""
    stem, tail = re.fullmatch(r'(.*?)(\.weight|\.bias)?', own).groups(default='')
    numbers, candidates = re.findall(r'(?<=\.)\d+(?=\.|$)', stem), [stem]
    if numbers:  # of a name with two, the second is part of the module's own name
        candidates.append(re.sub(r'(?<=\.)\d+(?=\.|$)', '*', stem, count=1))
    [row] = [candidate for candidate in candidates if candidate in table]
    name, _, third = table[row].partition('|')
    return row, name.replace('*', ''.join(numbers[:1])) + tail, int(third or 0)


def test_every_tensor_is_exported_to_where_the_official_code_has_it(sizes, tmp_path):
    """By values, no two of which are equal; and every line of the table is needed."""
    network = Sa2VANetwork(Sa2VAConfig(**sizes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter.data)
    save_weights(network, tmp_path)
    tensors = load_file(tmp_path / 'model.safetensors')
    table, used = official_table(), set()
    for own, tensor in network.state_dict().items():
        if own.startswith(('mlp1.', 'text_hidden_fcs.', 'language_model.')):
            assert torch.equal(tensors[own], tensor), own
        elif own == 'grounding_encoder.prompt_encoder.point_embed.weight':
            for index in range(4):
                name = f'{_SAM2}sam_prompt_encoder.point_embeddings.{index}.weight'
                assert torch.equal(tensors[name], tensor[index : index + 1])
        else:
            row, name, third = by_hand(own, table)
            used.add(row)
            assert torch.equal(tensors[name][third * len(tensor) : (third + 1) * len(tensor)], tensor), own
    assert used == table.keys()


def test_official_training_names_load_into_the_right_tensors(checkout):
    """From the golden weights, which have every tensor under its official training name."""
    folder = checkout / 'tests' / 'golden' / 'small'
    sizes, weights = json.loads((folder / 'config.json').read_text()), load_file(folder / 'weights.safetensors')
    small = Sa2VANetwork(Sa2VAConfig(
        vision_config=dict(sizes['vit'], attention_bias=True),
        llm_config=dict(hidden_size=sizes['llm_hidden_size'], num_hidden_layers=1, num_attention_heads=1,
                        num_key_value_heads=1, intermediate_size=8, vocab_size=8),
        grounding_config=sizes['sam2'],
    ))
    load_pretrained(small, folder / 'weights.safetensors',
                    parts=('vision_model', 'mlp1', 'text_hidden_fcs', 'grounding_encoder'))
    table, left = official_table(), set(weights)
    for own, tensor in small.state_dict().items():
        if own.startswith('language_model.'):
            continue
        if own == 'grounding_encoder.prompt_encoder.point_embed.weight':
            names = [f'{_SAM2}sam_prompt_encoder.point_embeddings.{index}.weight' for index in range(4)]
            assert torch.equal(torch.cat([weights[name] for name in names]), tensor)
            left -= set(names)
            continue
        alike = own.startswith(('mlp1.', 'text_hidden_fcs.'))
        _, name, third = ('', own, 0) if alike else by_hand(own, table)
        name = name if name.startswith(('grounding_encoder.', 'text_hidden_fcs.')) else 'mllm.model.' + name
        assert torch.equal(weights[name][third * len(tensor) : (third + 1) * len(tensor)], tensor), own
        left.discard(name)
    assert left == set()
