"""What a published config.json says of its network: every field is honoured, or refused by name.

A released Sa2VA folder and an InternVL folder describe themselves in the publisher's own fields. A field that is absent
means what the publisher's code does then. A field that nobody here knows is refused too, unless it is off (``false``,
``0``, ``null`` or empty): it may change what the network computes.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import InternVLVisionConfig, PretrainedConfig, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .templates import ChatTemplate, template_of

SA2VA, INTERNVL = 'sa2va_chat', 'internvl_chat'
#: Part of the file -> field -> the values that are honoured.
_HONOURED: dict[str, dict[str, tuple]] = {
    '': dict(
        model_type=(SA2VA, INTERNVL),
        architectures=(['Sa2VAChatModel'], ['InternVLChatModel']),
        ps_version=('v2', ),
        select_layer=(-1, ),
        downsample_ratio=(0.5, ),
        pad2square=(False, ),
        use_backbone_lora=(0, ),
        use_llm_lora=(0, ),
    ),
    'llm_config': dict(model_type=('qwen2', ), architectures=(['Qwen2ForCausalLM'], )),
    'vision_config': dict(
        model_type=('intern_vit_6b', InternVLVisionConfig.model_type),
        architectures=(['InternVisionModel'], ),
        norm_type=('layer_norm', 'rms_norm'),
    ),
}
#: What the publisher's code takes where the file says nothing, of the fields where that is not honoured.
_ABSENT = dict(ps_version='v1')
#: The same, of fields that count where a picture may be read as several tiles.
_OF_TILES: dict[str, tuple] = dict(min_dynamic_patch=(1, ), use_thumbnail=(True, ))
#: Why a value is not honoured, or what to do about it.
_WHY = {
    'ps_version': 'v1, which no ps_version at all means too, hands over the image tokens transposed',
    'select_layer': 'image features are those of the last layer',
    'downsample_ratio': 'four patches make one image token',
    'pad2square': 'pictures are resized, not padded',
    'min_dynamic_patch': 'a small picture is one tile; "dynamic_image_size": false reads one tile always',
    'use_thumbnail': 'several tiles are followed by a thumbnail; "dynamic_image_size": false reads one tile always',
    'use_backbone_lora': 'merge LoRA into the weights first',
    'use_llm_lora': 'merge LoRA into the weights first',
    'force_image_size': 'pictures are read in the size of vision_config.image_size',
    'hidden_size': 'as in llm_config',
}
#: Read below, field by field.
_READ = {*_OF_TILES, 'template', 'force_image_size', 'hidden_size', 'dynamic_image_size', 'max_dynamic_patch',
         'vision_config', 'llm_config', 'dtype', 'torch_dtype'}
#: Fields of the vision encoder that have another name in transformers.
_RENAMED = dict(qkv_bias='attention_bias', qk_normalization='use_qk_norm')
#: How the publisher's machine computed, how random weights were drawn, and what only counts with ``use_moe``.
_WITHOUT_EFFECT = {
    'attn_implementation', '_attn_implementation_autoset', 'use_flash_attn', 'use_cache', 'auto_map', 'torch_dtype',
    '_commit_hash', 'system_message', 'initializer_factor', 'drop_path_rate', 'dropout',
    'capacity_factor', 'eval_capacity_factor', 'laux_allreduce', 'moe_coeff_ratio', 'moe_intermediate_size',
    'moe_output_scale', 'noisy_gate_policy', 'num_experts', 'num_routed_experts', 'num_shared_experts',
    'shared_expert_intermediate_size', 'use_residual', 'use_rts', 'use_weighted_residual', 'ep_size',
}
#: Fields of every configuration of transformers; those of generation, of classification and of names.
_GENERIC = set(PretrainedConfig().to_dict())
#: Tiles that the publisher's code reads where config.json says nothing.
_TILES = 12


def from_published(file: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``Sa2VAConfig`` that a published config.json states.

    Raises:
        ValueError: a field says what is not supported, or is not known; names the file and the field.
    """
    parts = {'': found, **{part: found.get(part) or {} for part in ('vision_config', 'llm_config')}}
    for part, fields in parts.items():
        for name, values in _HONOURED[part].items():
            _check_value(file, part, name, fields.get(name), values)
    _check_known(file, '', found, _READ)
    _check_known(file, 'vision_config', parts['vision_config'], {*_RENAMED, *_arguments(InternVLVisionConfig)})
    _check_known(file, 'llm_config', parts['llm_config'], {'head_dim', *_arguments(Qwen2Config)})
    vision = {_RENAMED.get(name, name): value for name, value in _effective(parts['vision_config']).items()}
    llm = _effective(parts['llm_config'])
    _check_agreement(file, 'force_image_size', found.get('force_image_size'), vision.get('image_size'))
    _check_agreement(file, 'hidden_size', found.get('hidden_size'), llm.get('hidden_size'))
    _check_rope(file, llm.get('rope_scaling'))
    arguments = dict(vision_config=vision, llm_config=llm, max_num_tiles=_tiles(file, found))
    if (dtype := found.get('dtype', found.get('torch_dtype'))) is not None:
        arguments['dtype'] = dtype
    if (template := published_template(file, found)) is not None:
        arguments['template'] = template.name
    return arguments


def published_template(file: Path, found: Mapping[str, Any]) -> ChatTemplate | None:
    """The markup that a folder was taught to talk in; None where that is to be learned.

    InternVL's own templates do not count: what is trained from it learns ours.

    Raises:
        ValueError: the template is unknown; names the file.
    """
    if found.get('model_type') != SA2VA or 'template' not in found:
        return None
    name = found['template']
    try:
        return template_of(name.replace('-', '_') if isinstance(name, str) else name)
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error


def _tiles(file: Path, found: Mapping[str, Any]) -> int:
    tiles = found.get('max_dynamic_patch', _TILES) if found.get('dynamic_image_size', True) else 1
    if not isinstance(tiles, int) or tiles < 1:
        raise ValueError(f'{file}: max_dynamic_patch={tiles!r} is no number of tiles')
    if tiles > 1:
        for name, values in _OF_TILES.items():
            _check_value(file, '', name, found.get(name), values)
    return tiles


def _arguments(cls: type[PretrainedConfig]) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters)


def _effective(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _WITHOUT_EFFECT}


def _check_value(file: Path, part: str, name: str, value: Any, values: tuple) -> None:
    value = _ABSENT.get(name) if value is None else value
    if value is not None and value not in values:
        raise ValueError(f'{file}: {_path(part, name)}={value!r} is not supported, only '
                         f'{" or ".join(map(repr, values))}{_why(name)}')


def _check_known(file: Path, part: str, fields: Mapping[str, Any], known: set[str]) -> None:
    for name, value in fields.items():
        if value and name not in known | _HONOURED[part].keys() | _WITHOUT_EFFECT | _GENERIC:
            raise ValueError(
                f'{file}: {_path(part, name)}={value!r} is a field that is not known here, and may change what the '
                'network computes. If it does not, remove it from the file'
            )


def _check_agreement(file: Path, name: str, value: Any, of_part: Any) -> None:
    if value and of_part and value != (of_part[0] if isinstance(of_part, (list, tuple)) else of_part):
        raise ValueError(f'{file}: {name}={value!r} is not supported, only {of_part!r}{_why(name)}')


def _check_rope(file: Path, scaling: Mapping[str, Any] | None) -> None:
    kind = (scaling or {}).get('rope_type', (scaling or {}).get('type', 'default'))
    if kind not in ROPE_INIT_FUNCTIONS:
        raise ValueError(f'{file}: llm_config.rope_scaling of type {kind!r} is not supported, only '
                         f'{", ".join(ROPE_INIT_FUNCTIONS)}')


def _why(name: str) -> str:
    return f' ({_WHY[name]})' if name in _WHY else ''


def _path(part: str, name: str) -> str:
    return f'{part}.{name}' if part else name
