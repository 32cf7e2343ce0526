"""Arithmetic that a step needs, counted from the sizes: 2 for a multiply-add, nothing twice.

Counted are matrix products of the encoders and of the language model with LoRA, and attention (causal: half). Frozen
weights need no gradient of their own, so the backward pass through a frozen matrix costs as much as the forward pass.
Recomputation is not useful arithmetic and is not counted; the mask decoder, a few TFLOP in all, is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dual_loop.models import CaptionLoop, DualLoopModel, MaskLoop, SupervisedLoop
from llava_sam2.portable import prompts
from llava_sam2.portable.rows import caption_row, segmentation_row

#: Loops whose passes are known here, without the further passes of options that are off by default.
COUNTED = MaskLoop, CaptionLoop, SupervisedLoop


@dataclass(frozen=True)
class StepFlops:
    """FLOP of the phases of a step on one device, and what decoding must read.

    Attributes:
        encoders, teacher, language_model, backward: FLOP; ``language_model`` are the students' forward passes.
        decoded_bytes: the weights that one decoded token of all rows needs to read once.
        caption_row, segmentation_row: tokens of a row.
    """

    encoders: float
    teacher: float
    language_model: float
    backward: float
    decoded_bytes: float
    caption_row: int
    segmentation_row: int

    @property
    def total(self) -> float:
        return self.encoders + self.teacher + self.language_model + self.backward


def step_flops(model: DualLoopModel, rows: Mapping[str, float], caption_len: int, images: int) -> StepFlops:
    """Count a step with captions of ``caption_len`` tokens, in which the teacher describes every row of loop 1.

    Args:
        model: with the sizes, and loops that are ``COUNTED``.
        rows: name of a loop -> rows of it in the step.
        images: distinct images of all loops together.
    """
    base, config = model.base, model.base.config
    llm = config.llm_config
    width, layers, vocabulary = llm.hidden_size, llm.num_hidden_layers, llm.vocab_size
    matrices = base.network.language_model.model.layers.named_parameters()
    sizes = [(name, p.numel()) for name, p in matrices if p.ndim == 2]
    frozen, lora = (sum(size for name, size in sizes if ('.lora_' in name) == added) for added in (False, True))
    cells = torch.zeros(config.region_grid**2, dtype=torch.bool)
    cells[: config.num_image_tokens // 8] = True
    prompt = len(caption_row(base.vocabulary, config.num_image_tokens, 0, cells, []).input_ids)
    asked = segmentation_row(base.vocabulary, config.num_image_tokens, 0, 'x', prompts.EVALUATION_QUESTION,
                             prompts.SEGMENTATION_ANSWERS[0])
    answer = sum(label >= 0 for label in asked.labels)
    caption, segment = prompt + caption_len, len(asked.input_ids) + caption_len

    def forward(count: float, length: int, headed: int) -> float:
        attention = 2 * length**2 * width * layers
        return count * (2 * length * (frozen + lora) + attention + 2 * headed * width * vocabulary)

    def backward(count: float, length: int, headed: int) -> float:
        attention = 5 * length**2 * width * layers
        return count * (2 * length * (frozen + 2 * lora) + attention + 2 * headed * width * vocabulary)

    spoken, passes = 0.0, []
    for name, loop in model.loops.items():
        passes.append((rows[name], segment, answer))
        if not isinstance(loop, MaskLoop):
            passes.append((rows[name], caption, caption_len + 6))  # tokens of the answer round the caption
            continue
        spoken += rows[name]
        if loop.bridge is not None:  # else the student segments with the teacher's words
            passes.append((rows[name], caption, caption_len))
    element = base.network.token_embeddings().element_size()
    return StepFlops(
        encoders=images * (_vision(config) + _grounding(base.network.grounding_encoder.config)),
        teacher=forward(spoken, prompt, 1) + caption_len * spoken * 2 * (frozen + width * vocabulary),
        language_model=sum(forward(*each) for each in passes),
        backward=sum(backward(*each) for each in passes),
        decoded_bytes=(frozen + width * vocabulary) * element,
        caption_row=caption, segmentation_row=segment)


def _vision(config) -> float:
    """FLOP of InternViT for one image."""
    vision, patch = config.vision_config, config.vision_config.patch_size
    side = config.image_size // (patch if isinstance(patch, int) else patch[0])
    tokens, width = side**2 + 1, vision.hidden_size
    linear = 2 * tokens * (4 * width**2 + 2 * width * vision.intermediate_size)
    return vision.num_hidden_layers * (linear + 4 * tokens**2 * width)


def _grounding(config) -> float:
    """FLOP of SAM 2's encoder for one image: windows, some global blocks, maps that shrink by four at each stage."""
    hiera, total, number = config.vision_config.backbone_config, 0.0, 0
    for stage, (blocks, width) in enumerate(zip(hiera.blocks_per_stage, hiera.embed_dim_per_stage)):
        cells = (hiera.image_size[0] // 4 // 2**stage) ** 2
        for _ in range(blocks):
            seen = cells if number in hiera.global_attention_blocks else hiera.window_size_per_stage[stage] ** 2
            total += 24 * cells * width**2 + 4 * cells * seen * width
            number += 1
    return total
