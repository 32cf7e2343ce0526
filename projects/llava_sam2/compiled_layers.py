"""Layers that inductor compiles, each on its own: one compilation serves all layers of a kind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch._dynamo
import torch._functorch.config
from torch import Tensor, nn

#: From so many images on SAM 2's blocks are faster compiled (H100: 16 images 0.149 s, compiled 0.113 s; 2 images 0.021,
#: compiled 0.035).
MANY_IMAGES = 8


def check_memory_budget(memory_budget: float, compile: bool, checkpointing: bool) -> None:
    """Raise ValueError for a budget that cannot be kept."""
    if memory_budget != 1 and (checkpointing or not compile or not 0 <= memory_budget < 1):
        raise ValueError(f'model.memory_budget={memory_budget} is a share of 0..1 and needs compile=True and '
                         'checkpointing=False')


def compile_network(network: nn.Module, memory_budget: float = 1.0) -> None:
    """Compile each decoder layer and each block of SAM 2's encoder when it is first called.

    Args:
        network: a Sa2VANetwork, with or without LoRA.
        memory_budget: share of a layer's activations that its backward pass finds in memory; the rest is computed
            again. It holds for the whole process, since inductor knows no other.
    """
    torch._functorch.config.activation_memory_budget = memory_budget
    # Rows, lengths, training and evaluation, with and without autocast: more kinds of a layer than the default of 8.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for layer in (*network.language_model.model.layers, *network.grounding_encoder.vision_encoder.backbone.blocks):
        layer.compile()


@contextmanager
def where_it_pays(images: Tensor) -> Iterator[None]:
    """Run SAM 2's blocks as compiled ones, if they are, for many images on a GPU only."""
    if images.is_cuda and len(images) >= MANY_IMAGES:
        yield
    else:
        with torch.compiler.set_stance('force_eager'):
            yield


def keep_compiled(folder: Path) -> str:
    """Let inductor keep what it compiles in ``folder``, for the next process too, unless the user has named a place.

    Returns:
        The folder that is used.
    """
    return os.environ.setdefault('TORCHINDUCTOR_CACHE_DIR', str(folder))
