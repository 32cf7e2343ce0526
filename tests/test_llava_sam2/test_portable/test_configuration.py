"""Sizes of a folder of weights, and what a config states about them."""

import copy
import json

import pytest

from llava_sam2.portable.configuration import Sa2VAConfig, config_of_folder


@pytest.fixture
def own(network_sizes, tmp_path):
    Sa2VAConfig(**network_sizes).save_pretrained(tmp_path)
    return tmp_path


def plain(config: Sa2VAConfig) -> list:
    """What JSON keeps of it: tuples are lists."""
    return json.loads(json.dumps([config.vision_config.to_dict(), config.llm_config.to_dict(),
                                  config.grounding_config]))


def changed(sizes: dict, part: str, **fields) -> dict:
    sizes = copy.deepcopy(sizes)
    sizes[part].update(fields)
    return sizes


def test_a_folder_alone_gives_its_sizes(own, network_sizes):
    expected = Sa2VAConfig(**network_sizes)
    for stated in (None, network_sizes, dict(llm_config=dict(hidden_size=32))):
        config = config_of_folder(own, stated)
        assert plain(config) == plain(expected) and config.mask_selection == 'single'


def test_a_default_that_the_file_leaves_out_is_checked_too(network_sizes, tmp_path):
    sizes = changed(network_sizes, 'vision_config', hidden_size=64, num_attention_heads=16)
    Sa2VAConfig(**sizes).save_pretrained(tmp_path)
    config_of_folder(tmp_path, sizes)
    with pytest.raises(ValueError, match='num_attention_heads is 8, but .* says 16'):
        config_of_folder(tmp_path, changed(sizes, 'vision_config', num_attention_heads=8))
    with pytest.raises(ValueError, match='window_pos_embed_bkg_spatial_size'):
        config_of_folder(tmp_path, changed(sizes, 'grounding_config', window_pos_embed_bkg_spatial_size=(14, 14)))


@pytest.mark.parametrize('part, field, value', [
    ('vision_config', 'num_attention_heads', 4), ('llm_config', 'num_key_value_heads', 4),
    ('grounding_config', 'stages', (1, 1, 3, 1)), ('vision_config', 'image_size', 224),
])
def test_what_is_stated_otherwise_is_refused_by_name(own, network_sizes, part, field, value):
    """Heads and the like change no shape, so only this can notice."""
    with pytest.raises(ValueError, match=f'model.network.{part}.{field} is .* but {own}/config.json says'):
        config_of_folder(own, changed(network_sizes, part, **{field: value}))
    with pytest.raises(ValueError, match="mask_selection is 'predicted_iou'"):
        config_of_folder(own, network_sizes | dict(mask_selection='predicted_iou'))


def test_a_released_folder(tmp_path):
    """Its vision fields have the publisher's names, and it asks for kernels of the publisher's machine."""
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        model_type='sa2va_chat', architectures=['Sa2VAChatModel'], template='phi3_chat', max_dynamic_patch=12,
        ps_version='v2',
        auto_map=dict(AutoModel='modeling_sa2va_chat.Sa2VAChatModel'), torch_dtype='bfloat16',
        vision_config=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
                           image_size=448, patch_size=14, qkv_bias=True, qk_normalization=False, use_flash_attn=True),
        llm_config=dict(hidden_size=32, vocab_size=700, num_attention_heads=2, num_key_value_heads=1,
                        num_hidden_layers=1, attn_implementation='flash_attention_2', tie_word_embeddings=False),
    )))
    config = config_of_folder(tmp_path, dict(vision_config=dict(attention_bias=True, image_size=[448, 448])))
    assert config.vision_config.attention_bias and not config.vision_config.use_qk_norm
    assert config.num_image_tokens == 256 and config.llm_config.vocab_size == 700
    assert config.llm_config._attn_implementation != 'flash_attention_2'
    assert config.mask_selection == 'predicted_iou' and config.grounding_config == {}
    assert config.max_num_tiles == 12 and config_of_folder(tmp_path, dict(max_num_tiles=1)).max_num_tiles == 1
    with pytest.raises(ValueError, match='vision_config.attention_bias is False, but .* says True'):
        config_of_folder(tmp_path, dict(vision_config=dict(attention_bias=False)))


@pytest.mark.parametrize('released', [True, False])
def test_an_unknown_template_is_refused_by_name(tmp_path, own, released):
    found = json.loads((own / 'config.json').read_text())
    if released:
        found = dict(model_type='sa2va_chat', ps_version='v2')
    (tmp_path / 'config.json').write_text(json.dumps(found | dict(template='phi3_chat')))
    assert config_of_folder(tmp_path).template == 'phi3_chat'
    (tmp_path / 'config.json').write_text(json.dumps(found | dict(template='vicuna')))
    refusal = f"{tmp_path}/config.json: template='vicuna' is unknown, use one of .*'phi3_chat'"
    with pytest.raises(ValueError, match=refusal):
        config_of_folder(tmp_path)
    with pytest.raises(ValueError, match="template='vicuna' is unknown"):
        Sa2VAConfig(template='vicuna')


def test_the_template_of_internvl_does_not_count(tmp_path):
    """What is trained from it learns ours."""
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='internvl_chat', ps_version='v2',
                                                                template='internvl2_5')))
    assert config_of_folder(tmp_path).template == 'phi3_chat'


def test_a_template_stated_otherwise_is_refused(tmp_path):
    found = dict(model_type='sa2va_chat', ps_version='v2', template='phi3_chat')
    (tmp_path / 'config.json').write_text(json.dumps(found))
    assert config_of_folder(tmp_path, dict(template='phi3_chat')).chat_template.terminator == '<|end|>'
    with pytest.raises(ValueError, match="model.network.template is 'vicuna', but .* says 'phi3_chat'"):
        config_of_folder(tmp_path, dict(template='vicuna'))


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'no config.json in {tmp_path}'):
        config_of_folder(tmp_path)
