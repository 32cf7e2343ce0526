"""Rows of the added tokens (``[SEG] <p> </p> <vp> </vp>``) in the embedding and the head: checked, begun or trained."""

from collections.abc import Mapping

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..portable.pickled import CheckpointError
from ..portable.prompts import ADDED_TOKENS
from ..portable.stored import Stored

#: Modules of the language model with one row per token.
TOKEN_MODULES = ('embed_tokens', 'lm_head')


def added_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Added token to its id."""
    return {token: tokenizer.convert_tokens_to_ids(token) for token in ADDED_TOKENS}


def check_token_rows(stored: Stored, name: str, token_ids: Mapping[str, int]) -> None:
    """Check that every added token has a row that is not all zero.

    Raises:
        CheckpointError: names the token and the file.
    """
    tensor = stored.tensor()  # mapped: only the rows that are looked at come into memory
    for token, index in token_ids.items():
        if index >= stored.shape[0]:
            reason = f'has {stored.shape[0]} rows, and {token} is token {index}'
        elif not tensor[index].any():
            reason = f'has only zeros in row {index}, which is {token}'
        else:
            continue
        raise CheckpointError(
            f'{stored.file}: {name} {reason}. Take the tokenizer and the weights from the same folder of a Sa2VA model'
        )


def with_drawn_rows(tensor: torch.Tensor, num_rows: int, token_ids: Mapping[str, int]) -> torch.Tensor:
    """A matrix (V, D) with ``num_rows`` rows, those of the added tokens the mean of the others."""
    first_new = min(token_ids.values())
    mean = tensor[:first_new].mean(dim=0, dtype=torch.float32).to(tensor.dtype)
    drawn = torch.cat([tensor, mean.expand(num_rows - len(tensor), -1)])
    drawn[list(token_ids.values())] = mean
    return drawn


def trained_rows(module: nn.Module) -> torch.Tensor | None:
    """The whole matrix of a module whose added rows are trained alone, as its forward pass uses it; else None.

    The weight that PEFT wraps keeps the rows that training began with.
    """
    if not isinstance(module, TrainableTokensLayer):
        return None
    return module.get_merged_weights(module.active_adapters)
