"""The network: InternViT, projector, Qwen2, ``[SEG]`` projection and SAM 2, built from transformers' own modules."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import InternVLVisionModel, PreTrainedModel, Qwen2ForCausalLM, Sam2Model

from .aligned_head import head_logits
from .configuration import Sa2VAConfig, sam2_config
from .idle_attention import leave_out_idle_attention
from .image_processing import normalise
from .sequences import Batch


class Sa2VANetwork(PreTrainedModel):
    """Sa2VA as a bare network: encode an image, read a batch of sequences, decode masks from ``[SEG]`` states.

    Attribute names are those of the released checkpoints, except inside the transformers modules, whose names
    :mod:`llava_sam2.portable.key_maps` translates.
    """

    config_class = Sa2VAConfig
    base_model_prefix = ''
    main_input_name = 'pixel_values'
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ['InternVLVisionLayer', 'Qwen2DecoderLayer', 'Sam2MultiScaleBlock']

    def __init__(self, config: Sa2VAConfig):
        super().__init__(config)
        width, grounding = config.llm_config.hidden_size, sam2_config(**config.grounding_config)
        shuffled = 4 * config.vision_config.hidden_size
        self.vision_model = InternVLVisionModel(config.vision_config)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(shuffled), nn.Linear(shuffled, width), nn.GELU(), nn.Linear(width, width)
        )
        self.language_model = Qwen2ForCausalLM(config.llm_config)
        self.grounding_encoder = Sam2Model(grounding)
        leave_out_idle_attention(self.grounding_encoder)
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, grounding.mask_decoder_config.hidden_size)
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # The projector and the [SEG] head follow torch's own initialisation; the parts initialise themselves.
        pass

    # -- what transformers and PEFT ask for ------------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    # -- images ---------------------------------------------------------------------------------------------------

    def encode_vision(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """InternViT without CLS, pixel-shuffled, before the projector.

        Args:
            pixel_values: (I, 3, S, S), ImageNet-normalised.

        Returns:
            (I, n, 4 C) with n = ``config.num_image_tokens``, row-major.
        """
        features = self.vision_model(pixel_values=pixel_values.to(self.vision_model.dtype)).last_hidden_state[:, 1:]
        return pixel_shuffle(features)

    def encode_grounding(self, g_pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """SAM 2's feature maps before ``conv_s0`` and ``conv_s1``, which are trained.

        Args:
            g_pixel_values: (I, 3, G, G) uint8.

        Returns:
            Maps (I, d, G/4, G/4), (I, d, G/8, G/8), (I, d, G/16, G/16).
        """
        # Called directly: Sam2Model.get_image_embeddings would run the trainable convolutions under no_grad.
        encoder = self.grounding_encoder.vision_encoder
        return list(encoder(normalise(g_pixel_values).to(encoder.dtype)).fpn_hidden_states)

    # -- text -----------------------------------------------------------------------------------------------------

    def embed(self, batch: Batch, image_features: torch.Tensor) -> torch.Tensor:
        """Input embeddings of a batch: tokens, with image and region tokens and soft captions filled in.

        Args:
            batch: padded rows.
            image_features: (I, n, D), output of ``mlp1``.

        Returns:
            (B, L, D).
        """
        embeds = self.language_model.get_input_embeddings()(batch.input_ids)
        shape, embeds = embeds.shape, embeds.flatten(0, 1)
        visual = image_features.flatten(0, 1)[batch.visual_index]
        embeds = embeds.index_copy(0, batch.visual_places, visual.to(embeds.dtype))
        soft = [row.soft for row in batch.rows if row.soft is not None]
        if soft:
            embeds = embeds.index_copy(0, batch.slot_places, torch.cat(soft).to(embeds.dtype))
        return embeds.view(shape)

    def hidden_states(self, batch: Batch, image_features: torch.Tensor) -> torch.Tensor:
        """Last hidden states (B, L, D), after the final norm, of a padded batch; see :meth:`embed`.

        What stands at the padding means nothing. Padding on the right needs no mask: it follows its row, so causal
        attention never reaches it, and a position is its column. A mask would rule out the flash kernel and have keys
        and values repeated for each query head.
        """
        layer_types = self.language_model.config.layer_types
        where = dict(attention_mask=batch.attention_mask, position_ids=batch.position_ids) if any(batch.starts) else \
            dict(attention_mask=dict.fromkeys(layer_types))  # masks that are made already: none
        return self.language_model.model(
            inputs_embeds=self.embed(batch, image_features), use_cache=False, **where).last_hidden_state

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Next-token logits (..., V) of the given states only; no caller needs the head on every position."""
        return head_logits(self.language_model.lm_head, hidden_states)

    def token_embeddings(self) -> torch.Tensor:
        """The embedding matrix (V, D) as it is used in the forward pass."""
        return self.language_model.get_input_embeddings().weight

    # -- masks ----------------------------------------------------------------------------------------------------

    def decode_masks(self, feature_maps: Sequence[torch.Tensor], seg_embeds: torch.Tensor,
                     image_of_row: torch.Tensor | None = None) -> torch.Tensor:
        """Mask logits from ``[SEG]`` embeddings; every image stands alone, without memory.

        Args:
            feature_maps: three maps of I images, see :meth:`encode_grounding`.
            seg_embeds: (I, N, d), N objects an image share its features through SAM 2's point-batch axis.
            image_of_row: (R,) the image of each row, for ``seg_embeds`` (R, N, d) and logits (R, N, G/4, G/4).

        Returns:
            (I, N, G/4, G/4) logits of the selected mask. The object score does not gate it.
        """
        sam, decoder = self.grounding_encoder, self.grounding_encoder.mask_decoder
        fine, middle, coarse = feature_maps
        num_images, num_objects, _ = seg_embeds.shape
        images = [coarse + sam.no_memory_embedding.view(1, -1, 1, 1), decoder.conv_s0(fine), decoder.conv_s1(middle)]
        if image_of_row is not None:
            images = [each[image_of_row] for each in images]
        # What the prompt encoder returns for one point of label -1 and its padding point: two "not a point" tokens.
        not_a_point = sam.prompt_encoder.not_a_point_embed.weight.expand(num_images, num_objects, 2, -1)
        sparse = torch.cat([not_a_point, seg_embeds[:, :, None].to(not_a_point.dtype)], dim=2)
        dense = sam.prompt_encoder.no_mask_embed.weight[..., None, None].expand(num_images, -1, *coarse.shape[-2:])
        positions = sam.get_image_wide_positional_embeddings()  # in fp32, also where the maps are bf16
        masks, predicted_iou, _, _ = decoder(
            image_embeddings=images[0],
            image_positional_embeddings=positions.to(coarse.dtype).expand(num_images, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            high_resolution_features=images[1:],
        )
        if self.config.mask_selection == 'single':
            return masks[:, :, 0]
        best = predicted_iou.argmax(dim=-1)[..., None, None, None]
        return masks.take_along_dim(best, dim=2)[:, :, 0]


def binary_masks(logits: torch.Tensor, *sizes: tuple[int, int]) -> torch.Tensor:
    """Masks (I, N, H, W), bool, from logits (I, N, h, w), resized bilinearly to each of ``sizes`` in turn.

    The one place where logits become a mask. The released models go through SAM 2's input size to the original one;
    rows of images of their own are (R, 1, h, w).
    """
    logits = logits.float()
    for size in sizes:
        logits = F.interpolate(logits, size=size, mode='bilinear')
    return logits > 0


def pixel_shuffle(features: torch.Tensor) -> torch.Tensor:
    """Fold each 2 x 2 block of patches into one token: (I, H*W, C) to (I, H*W/4, 4C), InternVL's ``ps_version`` v2.

    ``out[i, j, (2p + q) * C + k] = in[2i + p, 2j + q, k]`` for p, q in {0, 1}.
    """
    num_images, num_patches, channels = features.shape
    side = int(num_patches**0.5)
    blocks = features.view(num_images, side // 2, 2, side // 2, 2, channels)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(num_images, num_patches // 4, 4 * channels)
