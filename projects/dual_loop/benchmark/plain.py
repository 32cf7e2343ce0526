"""The straightforward way to take a step: what the fast paths replace, kept to be compared with.

Eager decoding with LoRA unmerged and a cache that grows, masks where rows are padded, recomputation of every decoder
layer, nothing compiled, SAM 2 as transformers computes it, the surrogate loss as a sum of products.
"""

from functools import partial

import torch
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleAttention

from dual_loop.models import DualLoopModel
from llava_sam2.portable.idle_attention import LeanAttention
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.sequences import Batch


def masked_hidden_states(network: Sa2VANetwork, batch: Batch, image_features: torch.Tensor) -> torch.Tensor:
    """As ``Sa2VANetwork.hidden_states``, with a mask and positions."""
    return network.language_model.model(
        inputs_embeds=network.embed(batch, image_features), attention_mask=batch.attention_mask,
        position_ids=batch.position_ids, use_cache=False).last_hidden_state


def take_the_plain_way(model: DualLoopModel) -> None:
    """Let a model, for good, train as the straightforward way would."""
    model.teacher.static = False
    network, language_model = model.base.network, model.base.network.language_model
    network.hidden_states = partial(masked_hidden_states, network)  # type: ignore[method-assign]
    for layer in language_model.model.layers:
        layer._compiled_call_impl = None
    language_model.gradient_checkpointing_enable(dict(use_reentrant=False))
    for module in network.grounding_encoder.modules():
        if type(module) is LeanAttention:
            module.__class__ = Sam2MultiScaleAttention
    model.surrogate = sum_of_products  # type: ignore[method-assign]


def sum_of_products(parameters, gradients) -> torch.Tensor:
    """A scalar whose gradient is the given one, by a product and a sum for each tensor."""
    return sum((p * gradient.to(p.dtype)).sum() for p, gradient in zip(parameters, gradients, strict=True))
