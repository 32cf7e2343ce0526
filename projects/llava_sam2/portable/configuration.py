"""Sizes and switches of the network, stored as config.json beside its weights."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import InternVLVisionConfig, PretrainedConfig, Qwen2Config, Sam2Config

from .published import SA2VA, from_published, published_template
from .templates import PHI3_CHAT, TEMPLATES, ChatTemplate, template_of

MASK_SELECTIONS = ('predicted_iou', 'single')


class Sa2VAConfig(PretrainedConfig):
    """Configuration of :class:`~llava_sam2.portable.network.Sa2VANetwork`.

    Args:
        vision_config: fields of ``InternVLVisionConfig`` (InternViT).
        llm_config: fields of ``Qwen2Config``.
        grounding_config: sizes of SAM 2, see :func:`sam2_config`.
        mask_selection: ``predicted_iou`` takes the best of three masks by the decoder's own estimate, as the released
            models do; ``single`` always takes the first. The IoU head gets no gradient in this recipe, so a model
            trained from random weights must use ``single``.
        max_num_tiles: image tiles at most; 1 is what we train, the released models read 1..12 and a thumbnail.
        template: name of the markup of dialogues, one of ``templates.TEMPLATES``.

    Raises:
        ValueError: ``mask_selection`` or ``template`` is unknown.
    """

    model_type = SA2VA

    def __init__(
        self,
        vision_config: dict | None = None,
        llm_config: dict | None = None,
        grounding_config: dict | None = None,
        mask_selection: str = 'predicted_iou',
        max_num_tiles: int = 1,
        template: str = PHI3_CHAT.name,
        **kwargs,
    ):
        template_of(template)
        if mask_selection not in MASK_SELECTIONS:
            raise ValueError(f'mask_selection={mask_selection!r} is unknown, use one of {MASK_SELECTIONS}')
        self.vision_config = _as_config(InternVLVisionConfig, vision_config)
        self.llm_config = _as_config(Qwen2Config, llm_config)
        self.grounding_config = dict(grounding_config or {})
        self.mask_selection = mask_selection
        self.max_num_tiles = max_num_tiles
        self.template = template
        super().__init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Qwen2Config:
        """Where transformers looks for the size of the vocabulary and whether the head is tied."""
        return self.llm_config

    @property
    def chat_template(self) -> ChatTemplate:
        """Markup of the dialogues that the weights know."""
        return template_of(self.template)

    @property
    def image_size(self) -> int:
        return self.vision_config.image_size[0]

    @property
    def grounding_size(self) -> int:
        """Pixels per side of SAM 2's input."""
        return sam2_config(**self.grounding_config).prompt_encoder_config.image_size

    @property
    def region_grid(self) -> int:
        """Visual tokens per side of a tile: the pixel shuffle halves the patch raster."""
        return self.image_size // self.vision_config.patch_size[0] // 2

    @property
    def num_image_tokens(self) -> int:
        return self.region_grid**2


def _as_config(cls: type[PretrainedConfig], fields: dict | PretrainedConfig | None) -> PretrainedConfig:
    if isinstance(fields, cls):
        return fields
    # Qwen2Config writes into the dict of rope_scaling.
    return cls(**{name: dict(value) if isinstance(value, Mapping) else value for name, value in (fields or {}).items()})


_PARTS = ('vision_config', 'llm_config', 'grounding_config')


def config_of_folder(folder: Path, stated: Mapping[str, Any] | None = None) -> Sa2VAConfig:
    """Configuration of a folder of weights, ours or a released one.

    Args:
        folder: with config.json. A released one says nothing of SAM 2's sizes: they are hiera-large unless stated.
        stated: arguments of :class:`Sa2VAConfig`, possibly some only, that the folder must agree with. What the folder
            leaves open is taken from here; and ``max_num_tiles``, which is a choice of use.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: the folder says something else than ``stated``, or what is not supported; names the field.
    """
    file = folder / 'config.json'
    if not file.is_file():
        raise FileNotFoundError(f'no config.json in {folder}; point model.pretrained to a folder of weights')
    found, stated = _read(file), dict(stated or {})
    if 'grounding_config' in found:
        published_template(file, found)  # its refusal names the file
        known = _complete(Sa2VAConfig(**found))  # transformers leaves out what equals a default
    else:
        is_sa2va, found = found.get('model_type') == SA2VA, from_published(file, found)
        known = found
        if is_sa2va and 'template' not in {**found, **stated}:
            raise ValueError(f'{file} names no template, so how this model was taught to talk is not known: state '
                             f'model.network.template, one of {tuple(TEMPLATES)}')
    for part in _PARTS:
        own = stated.pop(part, {})
        for name, value in own.items():
            _check_field(file, f'{part}.{name}', value, known.get(part, {}))
        found[part] = {**found.get(part, {}), **own}
    for name, value in stated.items():
        if name == 'max_num_tiles':
            continue
        _check_field(file, name, value, known)
    return Sa2VAConfig(**found | stated)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file} is damaged ({error}); copy or download it again') from error
    if not isinstance(found, dict):
        raise ValueError(f'{file} is damaged: it is a {type(found).__name__}; copy or download it again')
    return found


def _complete(config: Sa2VAConfig) -> dict[str, Any]:
    sam2_defaults = {name: each.default for name, each in inspect.signature(sam2_config).parameters.items()}
    return config.to_dict() | dict(
        vision_config=config.vision_config.to_dict(),
        llm_config=config.llm_config.to_dict(),
        grounding_config=sam2_defaults | config.grounding_config,
    )


def _check_field(file: Path, path: str, stated: Any, found: Mapping[str, Any]) -> None:
    name = path.rpartition('.')[2]
    if name in found and _plain(found[name]) != _plain(stated):
        raise ValueError(
            f'model.network.{path} is {stated!r}, but {file} says {found[name]!r}: correct the config, or point '
            'model.pretrained to weights of that size'
        )


def _plain(value: Any) -> Any:
    """Equal for equal settings: a square as [448, 448] or 448, a sequence as tuple or list, a kind of RoPE by its old
    name."""
    if isinstance(value, Mapping):
        return {'rope_type' if name == 'type' else name: each for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return value[0] if len(value) == 2 and value[0] == value[1] else list(value)
    return value


def sam2_config(
    image_size: int = 1024,
    embed_dim: int = 144,
    num_heads: int = 2,
    stages: tuple[int, ...] = (2, 6, 36, 4),
    global_att_blocks: tuple[int, ...] = (23, 33, 43),
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7),
    window_spec: tuple[int, ...] = (8, 4, 16, 8),
    d_model: int = 256,
    decoder_mlp_dim: int = 2048,
) -> Sam2Config:
    """SAM 2 sizes in the names of its official configuration files; the defaults are hiera-large."""
    widths = [embed_dim * 2**stage for stage in range(len(stages))]
    strides = (4, 8, 16)
    return Sam2Config(
        vision_config=dict(
            backbone_config=dict(
                hidden_size=embed_dim,
                num_attention_heads=num_heads,
                image_size=[image_size, image_size],
                window_positional_embedding_background_size=list(window_pos_embed_bkg_spatial_size),
                blocks_per_stage=list(stages),
                embed_dim_per_stage=widths,
                num_attention_heads_per_stage=[num_heads * 2**stage for stage in range(len(stages))],
                window_size_per_stage=list(window_spec),
                global_attention_blocks=list(global_att_blocks),
            ),
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=[[image_size // stride] * 2 for stride in strides],
            fpn_hidden_size=d_model,
        ),
        prompt_encoder_config=dict(hidden_size=d_model, image_size=image_size),
        mask_decoder_config=dict(hidden_size=d_model, mlp_dim=decoder_mlp_dim),
    )
