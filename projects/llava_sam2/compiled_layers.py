"""Decoder layers that inductor compiles, each on its own: one compilation serves all of a model's layers."""

import os
from pathlib import Path

import torch._dynamo
import torch._functorch.config
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir


def check_memory_budget(memory_budget: float, compile: bool, checkpointing: bool) -> None:
    """Raise ValueError for a budget that cannot be kept."""
    if memory_budget != 1 and (checkpointing or not compile or not 0 <= memory_budget < 1):
        raise ValueError(f'model.memory_budget={memory_budget} is a share of 0..1 and needs compile=True and '
                         'checkpointing=False')


def compile_layers(language_model: nn.Module, memory_budget: float = 1.0) -> None:
    """Compile the forward and backward pass of each decoder layer when it is first called.

    Args:
        language_model: with or without LoRA.
        memory_budget: share of a layer's activations that its backward pass finds in memory; the rest is computed
            again. It holds for the whole process, since inductor knows no other.
    """
    torch._functorch.config.activation_memory_budget = memory_budget
    # Rows, lengths, training and evaluation, with and without autocast: more kinds of a layer than the default of 8.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
    for layer in language_model.model.layers:
        layer.compile()


def keep_compiled(folder: Path) -> str:
    """Let inductor keep what it compiles in ``folder``, for the next process too, unless the user has named a place.

    Returns:
        The folder that is used.
    """
    # torch writes its own default, below /tmp, into the environment as soon as anybody asks for the folder.
    if os.environ.get('TORCHINDUCTOR_CACHE_DIR') in (None, default_cache_dir()):
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = str(folder)
    return os.environ['TORCHINDUCTOR_CACHE_DIR']
