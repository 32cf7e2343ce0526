"""Greedy decoding of a left-padded batch."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache

from .network import Sa2VANetwork
from .sequences import Batch
from .vocabulary import Vocabulary

#: Without cuDNN's attention, which for a single query and bf16 gives other last bits at each run (torch 2.11, H200: the
#: states differed by 0.1 from the second token on), so that tokens flip. The others are as fast here.
REPEATABLE = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass
class Decoded:
    """Greedy output of one row.

    Attributes:
        ids: tokens before the one in which the terminator begins (its first character may share a token with a '.').
        ended: whether the terminator was reached.
        said: the tokens of the terminator too.
    """

    ids: list[int]
    ended: bool
    said: list[int] = field(default_factory=list, compare=False)


class Transcript:
    """What the rows of a batch have said so far, and which of them have ended.

    Args:
        rows: their number.
        vocabulary, max_new_tokens, stop_ids: see :func:`greedy_decode`.
    """

    def __init__(self, rows: int, vocabulary: Vocabulary, max_new_tokens: int, stop_ids: Collection[int] = ()):
        self.vocabulary, self.max_new_tokens, self.stop_ids = vocabulary, max_new_tokens, stop_ids
        self._ids: list[list[int]] = [[] for _ in range(rows)]
        self._lengths: list[int | None] = [None] * rows
        self._finished = [False] * rows

    @property
    def finished(self) -> bool:
        """Whether all rows have ended."""
        return all(self._finished)

    def add(self, tokens: Sequence[int]) -> None:
        """Take the next token of each row; what a row says after its end does not count."""
        for row, index in enumerate(tokens):
            if not self._finished[row]:
                ids = self._ids[row]
                ids.append(index)
                self._lengths[row] = len(ids) - 1 if index in self.stop_ids else self.vocabulary.caption_length(ids)
                # By the row alone: how long the others are must not change what it says.
                self._finished[row] = self._lengths[row] is not None or (
                    len(ids) > self.max_new_tokens and not self.vocabulary.may_be_ending(ids)
                )

    def decoded(self) -> list[Decoded]:
        """What each row has said."""
        ended = [length is not None and length <= self.max_new_tokens for length in self._lengths]
        limit = self.max_new_tokens
        return [
            Decoded(row[: length if whole else limit], whole, row if whole else row[:limit])
            for row, length, whole in zip(self._ids, self._lengths, ended)
        ]


@torch.no_grad()
def greedy_decode(
    network: Sa2VANetwork,
    batch: Batch,
    image_features: torch.Tensor,
    vocabulary: Vocabulary,
    max_new_tokens: int,
    forbidden: torch.Tensor | None = None,
    forbidden_first: torch.Tensor | None = None,
    poll: Callable[[], None] | None = None,
    stop_ids: Collection[int] = (),
) -> list[Decoded]:
    """Continue each row of a left-padded batch until the terminator or ``max_new_tokens`` tokens.

    Args:
        network: the network with the weights to decode with.
        batch: prompts padded on the left (``pad_rows(..., side='left')``).
        image_features: (I, n, D), output of ``mlp1``.
        vocabulary: tables of the tokenizer.
        max_new_tokens: upper bound, the terminator's own tokens not counted against a caption that ends in time.
        forbidden: (V,) bool, tokens never emitted.
        forbidden_first: (V,) bool, tokens that may not come first; default ``forbidden``.
        poll: called before each token; decoding ends with whatever it raises.
        stop_ids: single tokens that end a row as the terminator does.

    Raises:
        ValueError: when the batch is padded on the right (the first token would follow a pad).
    """
    if not bool(batch.attention_mask[:, -1].all()):
        raise ValueError('greedy_decode needs prompts padded on the left')
    device = batch.input_ids.device
    forbidden = torch.zeros(vocabulary.size, dtype=torch.bool) if forbidden is None else forbidden
    forbidden_first = forbidden if forbidden_first is None else forbidden_first
    banned_first, banned = forbidden_first.to(device), forbidden.to(device)
    cache = DynamicCache()
    inputs = dict(inputs_embeds=network.embed(batch, image_features))
    attention_mask, position_ids = batch.attention_mask, batch.position_ids
    transcript = Transcript(len(batch.rows), vocabulary, max_new_tokens, stop_ids)
    # The terminator has a few tokens of its own; a caption of exactly max_new_tokens may still end.
    for step in range(max_new_tokens + vocabulary.num_terminator_tokens):
        if poll is not None:
            poll()
        # Compiled layers would be compiled once more for each layer: its number is how they find their cache.
        with sdpa_kernel(REPEATABLE), torch.compiler.set_stance('force_eager'):
            hidden = network.language_model.model(
                **inputs, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        logits = network.logits(hidden).float().masked_fill(banned if step else banned_first, float('-inf'))
        token = logits.argmax(dim=-1)
        transcript.add(token.tolist())
        if transcript.finished:
            break
        inputs = dict(input_ids=token[:, None])
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(batch.rows), 1)], dim=1)
        position_ids = position_ids[:, -1:] + 1
    return transcript.decoded()
