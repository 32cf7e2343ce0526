"""What a run keeps on one GPU between its steps, by part, from the types and sizes of the tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dual_loop.models import DualLoopModel
from dual_loop.models.teacher import AFTER_ENCODERS
from llava_sam2.portable.static_decoding import LENGTH_STEP
from llava_sam2.portable.static_layers import linears

#: What cuBLAS takes on a Hopper card for each pair of handle and stream (torch's default): forward, backward, capture.
WORKSPACES = 3 * (32 << 20)
#: Parts of the network as users know them -> how names of their parameters begin, or what is in them.
PARTS = dict(vision_model='network.vision_model.', mlp1='network.mlp1.', lora='.lora_',
             language_model='network.language_model.', text_hidden_fcs='network.text_hidden_fcs.',
             mask_decoder='network.grounding_encoder.mask_decoder.', sam2='network.grounding_encoder.')


@dataclass(frozen=True)
class Sharding:
    """How DeepSpeed lays a run out.

    Attributes:
        gpus: N.
        stage: of ZeRO; 0 without DeepSpeed.
        bf16: whether it casts the module, and keeps fp32 masters in pieces.
        offload: whether masters and optimizer are the host's.
    """

    gpus: int = 1
    stage: int = 0
    bf16: bool = False
    offload: bool = False


def parameters_by_part(model: DualLoopModel) -> dict[str, tuple[int, int]]:
    """Part -> trained and frozen parameters. A parameter belongs to the first part that fits."""
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.base.named_parameters():
        part = next(part for part, begin in PARTS.items()
                    if name.startswith(begin) or begin.startswith('.') and begin in name)
        counts[part][not parameter.requires_grad] += parameter.numel()
    return {part: (trained, frozen) for part, (trained, frozen) in counts.items() if trained or frozen}


def kept_bytes(model: DualLoopModel, gradients: int, sharding: Sharding, averages: bool, states: int = 2
               ) -> dict[str, int]:
    """Part -> bytes on one GPU while passes run.

    Args:
        model: any, with or without memory.
        gradients: that surgery sees, each one flat fp32 buffer of all trained parameters.
        sharding: by DeepSpeed.
        averages: whether TeacherEMAHook keeps averages and writes the teacher's working copy.
        states: fp32 values that the optimizer keeps for a trained one; AdamW two.
    """
    trained = list(model.trainables().items())
    count = sum(parameter.numel() for _, parameter in trained)
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    size = 2 if sharding.bf16 else 4
    piece = -(-count // sharding.gpus) if sharding.stage else count
    here = 0 if sharding.offload else 4
    taught = sum(parameter.numel() for name, parameter in trained
                 if name.removeprefix('base.').startswith(AFTER_ENCODERS))
    return dict(
        frozen_weights=frozen + buffers,
        trained_weights=count * size,
        masters=piece * here if sharding.bf16 else 0,
        optimizer=piece * here * states,
        gradients_of_loops=gradients * count * 4,
        averages=count * 4 if averages else 0,
        teacher=taught * size if averages else 0,
        workspaces=WORKSPACES,
    )


def decoder_bytes(model: DualLoopModel, rows: int, prompt: int, answer: int) -> dict[str, int]:
    """Bytes of the static decoder's merged copy and of its cache, for ``rows`` prompts of a step described together."""
    network = model.base.network
    element = network.token_embeddings().element_size()
    layers = network.language_model.model.layers
    copy = sum(element * base.weight.numel() + (element * base.bias.numel() if base.bias is not None else 0)
               for layer in layers if any(hasattr(part, 'lora_A') for parts in linears(layer) for part in parts)
               for parts in linears(layer) for part in parts for base in [getattr(part, 'base_layer', part)])
    config = network.language_model.config
    length = prompt + answer + model.base.vocabulary.num_terminator_tokens
    length = min(config.max_position_embeddings, -(-length // LENGTH_STEP) * LENGTH_STEP)
    head = layers[0].self_attn.head_dim
    graph_rows = 1 << (rows - 1).bit_length()
    cells = 2 * len(layers) * graph_rows * length * config.num_key_value_heads * head
    return dict(decoder_copy=copy, decoder_cache=cells * element)


def optimizer_moment(model: DualLoopModel, sharding: Sharding) -> int:
    """Bytes beside what is kept when the optimizer steps: the gradient of each parameter, and a square root of it."""
    count = sum(parameter.numel() for parameter in model.trainables().values())
    piece = -(-count // sharding.gpus) if sharding.stage else count
    return count * (2 if sharding.bf16 else 4) + piece * (0 if sharding.offload else 4)


def sharding_of(settings: Mapping[str, Any] | None, gpus: int) -> Sharding:
    """From the contents of a DeepSpeed JSON file, or None.

    Raises:
        ValueError: ZeRO-3, which cannot train loops.
    """
    if settings is None:
        return Sharding(gpus)
    zero = settings.get('zero_optimization', {})
    stage = zero.get('stage', 0)
    if stage >= 3:
        raise ValueError('ZeRO-3 cannot train the dual loop: use zero2')
    enabled = settings.get('bf16', {}).get('enabled', False)
    return Sharding(gpus, stage, bool(enabled), 'offload_optimizer' in zero)
