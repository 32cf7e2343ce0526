"""Every field of a published config.json is honoured, or refused by name."""

import copy
import json

import pytest

from llava_sam2.portable.configuration import config_of_folder

#: Field for field what InternVL3 publishes, with the sizes of its smallest model, and what Sa2VA writes on top.
INTERNVL3 = dict(
    _commit_hash=None, architectures=['InternVLChatModel'],
    auto_map=dict(AutoModel='modeling_internvl_chat.InternVLChatModel'),
    downsample_ratio=0.5, dynamic_image_size=True, force_image_size=448, image_fold=None, max_dynamic_patch=12,
    min_dynamic_patch=1, model_type='internvl_chat', output_attentions=False, pad2square=False, ps_version='v2',
    select_layer=-1, system_message=None, template='internvl2_5', tie_word_embeddings=False, torch_dtype='bfloat16',
    transformers_version=None, use_backbone_lora=0, use_llm_lora=0, use_thumbnail=True,
    llm_config=dict(
        _name_or_path='./pretrained/Qwen2.5-32B-Instruct', add_cross_attention=False,
        architectures=['Qwen2ForCausalLM'], attention_dropout=0.0, bad_words_ids=None, bos_token_id=151643,
        diversity_penalty=0.0, eos_token_id=151643, hidden_act='silu', hidden_size=896, id2label={'0': 'LABEL_0'},
        initializer_range=0.02, intermediate_size=4864, length_penalty=1.0, max_length=20,
        max_position_embeddings=32768, max_window_layers=70, model_type='qwen2', moe_config=None,
        num_attention_heads=14, num_beams=1, num_hidden_layers=24, num_key_value_heads=2,
        pruned_heads={}, return_dict=True, rms_norm_eps=1e-6,
        rope_scaling=dict(factor=2.0, rope_type='dynamic', type='dynamic'), rope_theta=1e6, sliding_window=None,
        temperature=1.0, tie_word_embeddings=False, top_k=50, torch_dtype='bfloat16', transformers_version='4.37.2',
        typical_p=1.0, use_bfloat16=True, use_cache=False, use_sliding_window=False, vocab_size=151674),
    vision_config=dict(
        _name_or_path='OpenGVLab/InternViT-6B-448px-V1-5', architectures=['InternVisionModel'], attention_dropout=0.0,
        capacity_factor=1.2, drop_path_rate=0.1, dropout=0.0, eval_capacity_factor=1.4, hidden_act='gelu',
        hidden_size=1024, image_size=448, initializer_factor=0.1, initializer_range=1e-10, intermediate_size=4096,
        laux_allreduce='all_nodes', layer_norm_eps=1e-6, model_type='intern_vit_6b', moe_coeff_ratio=0.5,
        moe_intermediate_size=768, moe_output_scale=4.0, noisy_gate_policy='RSample_before', norm_type='layer_norm',
        num_attention_heads=16, num_channels=3, num_experts=8, num_hidden_layers=24, num_routed_experts=4,
        num_shared_experts=4, patch_size=14, qk_normalization=False, qkv_bias=True,
        shared_expert_intermediate_size=3072, torch_dtype='bfloat16', use_bfloat16=True, use_flash_attn=False,
        use_moe=False, use_residual=True,
        use_rts=False, use_weighted_residual=False),
)
SA2VA = INTERNVL3 | dict(architectures=['Sa2VAChatModel'], model_type='sa2va_chat', template='qwen_chat',
                         hidden_size=896)


@pytest.fixture
def config_of(tmp_path):
    """The configuration of a folder with this config.json in which some fields, by path, have other values."""

    def config_of(found: dict, without: tuple = (), stated: dict | None = None, **changes):
        found = copy.deepcopy(found)
        for path, value in changes.items():
            *parts, name = path.split('__')
            (found[parts[0]] if parts else found)[name] = value
        for name in without:
            del found[name]
        (tmp_path / 'config.json').write_text(json.dumps(found))
        return config_of_folder(tmp_path, stated)

    return config_of


@pytest.mark.parametrize('found', [SA2VA, INTERNVL3])
def test_what_is_published_is_read(config_of, found):
    config = config_of(found)
    assert config.template == ('qwen_chat' if found is SA2VA else 'phi3_chat')  # InternVL's own does not count
    llm, vision = config.llm_config, config.vision_config
    assert llm.rope_scaling['rope_type'] == 'dynamic' and llm.rope_scaling['factor'] == 2.0
    assert (llm.hidden_size, llm.rope_theta, llm.tie_word_embeddings) == (896, 1e6, False)
    assert vision.attention_bias and not vision.use_qk_norm and vision.layer_norm_eps == 1e-6
    assert config.max_num_tiles == 12 and str(config.dtype).endswith('bfloat16')


@pytest.mark.parametrize('template', ['phi3_chat', 'qwen_chat', 'phi3-chat'])
def test_both_templates(config_of, template):
    """The publisher's code takes a hyphen for an underscore."""
    assert config_of(SA2VA, template=template).template == template.replace('-', '_')


@pytest.mark.parametrize('field, value, message', [
    ('template', 'internlm2_chat', "template='internlm2_chat' is unknown, use one of"),
    ('template', None, "template=None is unknown"),
    ('model_type', 'internvl', "model_type='internvl' is not supported, only 'sa2va_chat' or 'internvl_chat'"),
    ('architectures', ['Sa2VAChatModelQwen'], r"architectures=\['Sa2VAChatModelQwen'\] is not supported"),
    ('ps_version', 'v1', "ps_version='v1' is not supported, only 'v2'"),
    ('select_layer', -4, 'select_layer=-4 is not supported, only -1'),
    ('downsample_ratio', 0.25, 'downsample_ratio=0.25 is not supported'),
    ('pad2square', True, 'pad2square=True is not supported'),
    ('force_image_size', 336, 'force_image_size=336 is not supported, only 448'),
    ('hidden_size', 2048, 'hidden_size=2048 is not supported, only 896'),
    ('use_thumbnail', False, 'use_thumbnail=False is not supported.*dynamic_image_size'),
    ('min_dynamic_patch', 2, 'min_dynamic_patch=2 is not supported'),
    ('max_dynamic_patch', 0, 'max_dynamic_patch=0 is no number of tiles'),
    ('max_dynamic_patch', 'many', "max_dynamic_patch='many' is no number of tiles"),
    ('use_llm_lora', 128, 'use_llm_lora=128 is not supported.*merge LoRA'),
    ('use_backbone_lora', 16, 'use_backbone_lora=16 is not supported.*merge LoRA'),
    ('llm_config__model_type', 'internlm2', "llm_config.model_type='internlm2' is not supported, only 'qwen2'"),
    ('llm_config__architectures', ['Qwen3ForCausalLM'], 'llm_config.architectures=.*Qwen2ForCausalLM'),
    ('llm_config__rope_scaling', dict(type='magic'), "llm_config.rope_scaling of type 'magic' is not supported"),
    ('vision_config__model_type', 'siglip', "vision_config.model_type='siglip'"),
    ('vision_config__norm_type', 'batch_norm', "vision_config.norm_type='batch_norm'"),
    ('vision_config__use_moe', True, 'vision_config.use_moe=True is a field that is not known'),
    ('llm_config__partial_rotary_factor', 0.5, 'llm_config.partial_rotary_factor=0.5 is a field that is not known'),
    ('rope_pos_id_version', 'v2pe_fix', "rope_pos_id_version='v2pe_fix' is a field that is not known"),
])
def test_what_is_not_honoured_is_refused_by_name(config_of, tmp_path, field, value, message):
    with pytest.raises(ValueError, match=f'^{tmp_path}/config.json: {message}'):
        config_of(SA2VA, **{field: value})


@pytest.mark.parametrize('changes, tiles', [
    (dict(max_dynamic_patch=6), 6), (dict(dynamic_image_size=False), 1), (dict(max_dynamic_patch=1), 1),
    (dict(dynamic_image_size=False, use_thumbnail=False, min_dynamic_patch=3), 1),
])
def test_tiles(config_of, changes, tiles):
    assert config_of(SA2VA, **changes).max_num_tiles == tiles
    assert config_of(SA2VA, **changes, stated=dict(max_num_tiles=2)).max_num_tiles == 2  # a choice of use


def test_an_absent_field_means_what_the_publishers_code_does(config_of):
    tiles = ('dynamic_image_size', 'max_dynamic_patch', 'min_dynamic_patch', 'use_thumbnail')
    others = ('select_layer', 'downsample_ratio', 'pad2square', 'force_image_size', 'use_llm_lora', 'architectures')
    assert config_of(SA2VA, without=tiles + others).max_num_tiles == 12
    with pytest.raises(ValueError, match="ps_version='v1' is not supported, only 'v2'"):
        config_of(SA2VA, without=('ps_version', ))


def test_a_model_that_does_not_say_how_it_talks_must_be_told(config_of):
    with pytest.raises(ValueError, match='config.json names no template.*state model.network.template, one of'):
        config_of(SA2VA, without=('template', ))
    assert config_of(SA2VA, without=('template', ), stated=dict(template='qwen_chat')).template == 'qwen_chat'


def test_what_is_off_may_have_any_name(config_of):
    assert config_of(SA2VA, some_switch=False, other=None, vision_config__more=0, llm_config__list=[]).template


def test_rope_is_compared_by_what_it_says(config_of):
    old = dict(type='dynamic', factor=2.0)
    assert config_of(SA2VA, stated=dict(llm_config=dict(rope_scaling=old))).llm_config.rope_scaling['factor'] == 2.0
    assert old == dict(type='dynamic', factor=2.0)  # what a config states is not written into
    with pytest.raises(ValueError, match='model.network.llm_config.rope_scaling is .*4.0.* but .* says'):
        config_of(SA2VA, stated=dict(llm_config=dict(rope_scaling=dict(type='dynamic', factor=4.0))))


@pytest.mark.parametrize('content', ['{"model_type": ', '[]'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(ValueError, match=f'{tmp_path}/config.json is damaged'):
        config_of_folder(tmp_path)
