"""Names of tensors: the released layout, the training layout and the modules of this network.

The released layout (a Hugging Face Sa2VA folder) is the reference. One function, :func:`released_parts`, says where a
tensor of the network lies in it. Loading and export both follow it, so they cannot disagree.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SAM2_PREFIX = _SAM2 = 'grounding_encoder.sam2_model.'

#: SAM 2's video memory. It is not used for single frames; an export carries it through untouched, all or none.
CARRIED_PREFIXES = tuple(
    _SAM2 + name
    for name in (
        'maskmem_tpos_enc',
        'mask_downsample.',
        'memory_attention.',
        'memory_encoder.',
        'no_mem_pos_enc',
        'no_obj_ptr',
        'obj_ptr_proj.',
    )
)

# Names inside each part: a pattern at the beginning of our name, and the released one. The first that fits is taken.
_VISION = [
    (r'embeddings\.cls_token$', 'embeddings.class_embedding'),
    (r'embeddings\.position_embeddings$', 'embeddings.position_embedding'),
    (r'embeddings\.patch_embeddings\.projection\.', 'embeddings.patch_embedding.'),
    (r'encoder\.layer\.(\d+)\.attention\.projection_layer\.', r'encoder.layers.\1.attn.proj.'),
    (r'encoder\.layer\.(\d+)\.attention\.', r'encoder.layers.\1.attn.'),
    (r'encoder\.layer\.(\d+)\.layernorm_before\.', r'encoder.layers.\1.norm1.'),
    (r'encoder\.layer\.(\d+)\.layernorm_after\.', r'encoder.layers.\1.norm2.'),
    (r'encoder\.layer\.(\d+)\.lambda_([12])$', r'encoder.layers.\1.ls\2'),
    (r'encoder\.layer\.(\d+)\.mlp\.', r'encoder.layers.\1.mlp.'),
]
_GROUNDING = [
    (r'no_memory_embedding$', 'no_mem_embed'),
    (
        r'(shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$',
        'sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix',
    ),
    (r'vision_encoder\.backbone\.patch_embed\.projection\.', 'image_encoder.trunk.patch_embed.proj.'),
    (r'vision_encoder\.backbone\.(blocks\.\d+)\.layer_norm([12])\.', r'image_encoder.trunk.\1.norm\2.'),
    (r'vision_encoder\.backbone\.(blocks\.\d+)\.mlp\.proj_in\.', r'image_encoder.trunk.\1.mlp.layers.0.'),
    (r'vision_encoder\.backbone\.(blocks\.\d+)\.mlp\.proj_out\.', r'image_encoder.trunk.\1.mlp.layers.1.'),
    (r'vision_encoder\.backbone\.', 'image_encoder.trunk.'),
    (r'vision_encoder\.neck\.convs\.(\d+)\.', r'image_encoder.neck.convs.\1.conv.'),
    (r'prompt_encoder\.mask_embed\.conv1\.', 'sam_prompt_encoder.mask_downscaling.0.'),
    (r'prompt_encoder\.mask_embed\.layer_norm1\.', 'sam_prompt_encoder.mask_downscaling.1.'),
    (r'prompt_encoder\.mask_embed\.conv2\.', 'sam_prompt_encoder.mask_downscaling.3.'),
    (r'prompt_encoder\.mask_embed\.layer_norm2\.', 'sam_prompt_encoder.mask_downscaling.4.'),
    (r'prompt_encoder\.mask_embed\.conv3\.', 'sam_prompt_encoder.mask_downscaling.6.'),
    (r'prompt_encoder\.', 'sam_prompt_encoder.'),
    (r'mask_decoder\.upscale_conv1\.', 'sam_mask_decoder.output_upscaling.0.'),
    (r'mask_decoder\.upscale_layer_norm\.', 'sam_mask_decoder.output_upscaling.1.'),
    (r'mask_decoder\.upscale_conv2\.', 'sam_mask_decoder.output_upscaling.3.'),
    (r'mask_decoder\.transformer\.layer_norm_final_attn\.', 'sam_mask_decoder.transformer.norm_final_attn.'),
    (r'mask_decoder\.(transformer\.layers\.\d+)\.layer_norm(\d)\.', r'sam_mask_decoder.\1.norm\2.'),
    (r'mask_decoder\.(transformer\.layers\.\d+)\.mlp\.proj_in\.', r'sam_mask_decoder.\1.mlp.layers.0.'),
    (r'mask_decoder\.(transformer\.layers\.\d+)\.mlp\.proj_out\.', r'sam_mask_decoder.\1.mlp.layers.1.'),
    (r'mask_decoder\.(transformer\..*)\.o_proj\.', r'sam_mask_decoder.\1.out_proj.'),
    (r'mask_decoder\.(\w+head|output_hypernetworks_mlps\.\d+)\.proj_in\.', r'sam_mask_decoder.\1.layers.0.'),
    (r'mask_decoder\.(\w+head|output_hypernetworks_mlps\.\d+)\.layers\.0\.', r'sam_mask_decoder.\1.layers.1.'),
    (r'mask_decoder\.(\w+head|output_hypernetworks_mlps\.\d+)\.proj_out\.', r'sam_mask_decoder.\1.layers.2.'),
    (r'mask_decoder\.', 'sam_mask_decoder.'),
]
_RENAMES = [
    (re.compile(own + pattern), released + name)
    for own, released, names in (
        (r'^vision_model\.', 'vision_model.', _VISION),
        (r'^grounding_encoder\.', _SAM2, _GROUNDING),
    )
    for pattern, name in names
]
_QKV = re.compile(r'^(vision_model\.encoder\.layers\.\d+\.attn\.)([qkv])_proj\.(weight|bias)$')


class Part(NamedTuple):
    """``network[own][own_rows]`` is ``released[name][rows]``; rows are slices of the first axis."""

    own: str
    own_rows: slice
    name: str
    rows: slice


def released_parts(own: str, num_rows: int) -> list[Part]:
    """Where one tensor of the network lies in the released layout.

    Args:
        own: name in the network, with or without PEFT's ``base_layer`` and ``token_adapter``.
        num_rows: size of its first axis.
    """
    if own == 'grounding_encoder.prompt_encoder.point_embed.weight':
        name = _SAM2 + 'sam_prompt_encoder.point_embeddings.{}.weight'
        return [Part(own, slice(i, i + 1), name.format(i), slice(0, 1)) for i in range(num_rows)]
    name = own.replace('.token_adapter.base_layer.', '.').replace('.base_layer.', '.')
    for pattern, replacement in _RENAMES:
        name, renamed = pattern.subn(replacement, name)
        if renamed:
            break
    if match := _QKV.match(name):
        first = 'qkv'.index(match[2]) * num_rows
        return [Part(own, slice(0, num_rows), f'{match[1]}qkv.{match[3]}', slice(first, first + num_rows))]
    return [Part(own, slice(0, num_rows), name, slice(0, num_rows))]


def released_table(shapes: Mapping[str, Iterable[int]]) -> dict[str, list[Part]]:
    """Released name to its parts, for all tensors of a network given by name and shape.

    What PEFT adds beside them is left out: LoRA, and rows that are trained alone.
    """
    table: dict[str, list[Part]] = {}
    for own, shape in shapes.items():
        if is_lora(own) or is_token_rows(own):
            continue
        for part in released_parts(own, next(iter(shape))):
            table.setdefault(part.name, []).append(part)
    return table


def own_to_released(shapes: Mapping[str, Iterable[int]]) -> dict[str, list[Part]]:
    """Released name to the parts that it is joined from, in the order of its rows; a shared buffer counts once."""
    return {
        name: [part for _, part in sorted({part.rows.start: part for part in parts}.items())]
        for name, parts in released_table(shapes).items()
    }


def is_lora(name: str) -> bool:
    return '.lora_A.' in name or '.lora_B.' in name


def is_token_rows(name: str) -> bool:
    """Whether a tensor holds the rows of single tokens that PEFT trains in place of a whole matrix."""
    return '.trainable_tokens_delta.' in name


def is_carried(released: str) -> bool:
    return released.startswith(CARRIED_PREFIXES)


def training_to_released(name: str) -> str:
    """Name in an official training checkpoint (with or without PEFT) to the released one; LoRA keys keep their tail."""
    name = name.removeprefix('mllm.model.').replace('language_model.base_model.model.', 'language_model.')
    name = name.replace('.base_layer.', '.')
    return re.sub(r'(memory_encoder\.fuser\.layers\.\d+)\.gamma$', r'\1.g_weight', name)


def released_to_training(name: str) -> str:
    """Released name to the official training name of a model without LoRA."""
    name = re.sub(r'(memory_encoder\.fuser\.layers\.\d+)\.g_weight$', r'\1.gamma', name)
    return 'mllm.model.' + name if name.startswith(('vision_model.', 'mlp1.', 'language_model.')) else name
