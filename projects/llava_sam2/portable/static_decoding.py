"""Greedy decoding near the memory roof: weights at fixed addresses, a static cache, one captured graph per token.

Reading all weights once per token is what a small batch cannot go below. The plain way (``generation.greedy_decode``)
spends ten to thirty times as long on launching kernels: LoRA unmerged, a cache that grows, a mask that is built anew.
Rows are padded on the right here, so a row's position is its column: prompts are read by plain causal attention without
a mask, and each new token takes the place of the row's first padding. What rows about one picture have in common is
read once.

What a row says is a function of its batch, and not of what was decoded before: batches of one size are computed alike.
"""

import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from .generation import REPEATABLE, Decoded, Transcript
from .network import Sa2VANetwork
from .sequences import Batch, Row, on_device
from .shared_prefixes import Prefixes, shared_prefixes
from .static_layers import (
    StaticLayer,
    finish,
    layer_step,
    obstacle,
    project,
    rest_attention,
    rms_norm,
    rotate,
    signature,
)
from .vocabulary import Vocabulary

#: Tokens between two looks of the host at what was said. Up to two such pieces are computed in vain.
PIECE = 2
#: Room for prompt and answer is a multiple of this, so that a graph serves prompts of many lengths.
LENGTH_STEP = 256
#: Up to so many rows attention as plain products is faster than the flash kernel (H100: 3.8 against 3.9 ms a token with
#: 2 rows, 5.1 against 4.5 ms with 16).
FEW_ROWS = 4


@dataclass
class _Room:
    """Where batches of one size are decoded: caches (R, L, groups, d) of the layers, and the state of a step.

    Attributes:
        caches: keys and values of each layer.
        token, position: (R,) last token of each row, and its position.
        said: (L, R) all tokens since the prompt.
        states: (L, R, D) final states at these; None if nobody asks.
        count: (1,) how many there are.
        row: (R,) numbers.
        step: the next token of all rows, given how many columns are in use.
    """

    caches: list[tuple[Tensor, Tensor]]
    token: Tensor
    position: Tensor
    said: Tensor
    states: Tensor | None
    count: Tensor
    row: Tensor
    step: Callable[[int], None]


class StaticDecoder:
    """A decoder with caches of its own, and with a merged copy of the layers where they carry LoRA.

    Memory: rows * length of keys and values; with LoRA the decoder layers once more, without it no weights. Graphs are
    captured on first use for each power of two of rows and each multiple of ``LENGTH_STEP``; on the CPU the same steps
    run without a graph.

    Args:
        network: the network to decode with, in evaluation mode.
        vocabulary: tables of the tokenizer.
        compile: on a GPU, compile the step of a decoder layer (inductor; some seconds for each graph).
        rows: a graph has at least so many: a last batch that is smaller is decoded by the graph of the others.
        states: keep the final states of what is said, see :meth:`states_at`.

    Attributes:
        lock: for threads that share it, to be held from :meth:`decode` to the last :meth:`states_at`.

    Raises:
        ValueError: the network is not one that can be decoded so, see :func:`~.static_layers.obstacle`.
    """

    @torch.inference_mode(False)  # what is made inside one cannot be written outside of it
    def __init__(self, network: Sa2VANetwork, vocabulary: Vocabulary, compile: bool = False, rows: int = 1,
                 states: bool = False):
        if reason := obstacle(network):
            raise ValueError(f'no static decoding: {reason}')
        self.network, self.vocabulary, self.least_rows, self.states = network, vocabulary, rows, states
        self.signature, self.lock = signature(network), threading.Lock()
        model, config = network.language_model.model, network.language_model.config
        self.layers = [StaticLayer(layer) for layer in model.layers]
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size = model.layers[0].self_attn.head_dim
        self.positions = config.max_position_embeddings
        self.device = network.token_embeddings().device
        self.graphed = self.device.type == 'cuda'
        self.compile = compile and self.graphed
        self.cells = self.length = 0
        self.rooms: dict[tuple[int, int], _Room] = {}
        self.banned = torch.zeros(vocabulary.size, dtype=torch.bool, device=self.device)
        self.merge()

    @property
    def stale(self) -> bool:
        """Whether the network has moved, or was cast, or has other modules or weights than it had."""
        return self.signature != signature(self.network)

    @torch.no_grad()
    def merge(self, values: Mapping[nn.Parameter, Tensor] | None = None) -> None:
        """Write W + scaling * B A into the copy of the layers; to be called whenever LoRA has changed.

        Args:
            values: of LoRA's A and B in place of the parameters' own.
        """
        for layer in self.layers:
            layer.merge(values or {})

    def most_new_tokens(self, rows: Sequence[Row]) -> int:
        """How long answers to prompts can be at most; below 1 if the model has too few positions."""
        return self.positions - max(len(row.input_ids) for row in rows) - self.vocabulary.num_terminator_tokens

    @torch.no_grad()
    def decode(
        self,
        batch: Batch,
        image_features: Tensor,
        max_new_tokens: int,
        forbidden: Tensor | None = None,
        forbidden_first: Tensor | None = None,
        poll: Callable[[], None] | None = None,
        stop_ids: Collection[int] = (),
    ) -> list[Decoded]:
        """As :func:`generation.greedy_decode` does, for a batch that is padded on the right.

        Raises:
            ValueError: when the batch is padded on the left, or longer than the model's positions.
        """
        if any(batch.starts):
            raise ValueError('StaticDecoder needs prompts padded on the right')
        (count, width), limit = batch.input_ids.shape, max_new_tokens + self.vocabulary.num_terminator_tokens
        room = self.room = self._room(count, width + limit)
        self.banned.zero_() if forbidden is None else self.banned.copy_(forbidden)
        self._read(room, batch, image_features, self.banned if forbidden_first is None else
                   forbidden_first.to(self.device))
        transcript = Transcript(count, self.vocabulary, max_new_tokens, stop_ids)
        piece = PIECE if self.graphed else 1
        pending: list[Callable[[], list[list[int]]]] = []
        for start in range(0, limit, piece):
            if poll is not None:
                poll()
            stop = min(start + piece, limit)
            for place in range(start, stop):
                room.step(width + place + 1)
            # Looked at while the next piece is running, so that the device does not wait for the host.
            pending.append(_fetched(room.said[start:stop, :count]))
            if len(pending) > 1 or not self.graphed:
                _add(transcript, pending.pop(0)())
                if transcript.finished:
                    break
        while pending and not transcript.finished:
            _add(transcript, pending.pop(0)())
        return transcript.decoded()

    def states_at(self, rows: Sequence[int], places: Sequence[int]) -> Tensor:
        """(N, D) final states of the last batch at tokens that were said: of each its row and its place in the answer.

        They are those that a pass over prompt and answer gives there, but for rounding.
        """
        return self.room.states[on_device(places, self.device), on_device(rows, self.device)]

    # -- what is fixed between tokens -------------------------------------------------------------------------------

    @torch.inference_mode(False)  # which turns gradients on
    @torch.no_grad()
    def _room(self, count: int, length: int) -> _Room:
        """The room for so many rows and tokens, empty."""
        if length > self.positions:
            raise ValueError(f'prompt and answer take {length} tokens, but the language model has {self.positions} '
                             'positions')
        rows = 1 << (max(count, self.least_rows) - 1).bit_length() if self.graphed else count
        length = min(self.positions, -(-length // LENGTH_STEP) * LENGTH_STEP)
        if rows * length > self.cells or length > self.length:
            self._reserve(rows * length, length)
        if (rows, length) not in self.rooms:
            self.rooms[rows, length] = self._furnished(rows, length)
        # Else what overflowed once would be there for ever: zero times infinity is no zero.
        self.store[:, : rows * length].zero_()
        return self.rooms[rows, length]

    def _reserve(self, cells: int, length: int) -> None:
        """Memory for so many tokens in all and in a row; what was captured for less is forgotten."""
        self.rooms.clear()
        like = self.network.token_embeddings().detach()
        self.cells, self.length = max(self.cells, cells), max(self.length, length)
        self.store = self.heard = None  # before the larger ones are made
        self.store = like.new_zeros(2 * len(self.layers), self.cells, self.groups, self.size)
        self.heard = like.new_zeros(self.cells, like.shape[1]) if self.states else None
        self.column = torch.arange(self.length, device=like.device)
        rotary = self.network.language_model.model.rotary_emb
        rotary(like, self.column[None, :1])  # dynamic ones keep the frequencies of longer texts until a short one comes
        cos, sin = rotary(like, self.column[None])
        self.cos, self.sin = cos[0].to(like.dtype), sin[0].to(like.dtype)

    def _furnished(self, rows: int, length: int) -> _Room:
        shape = rows, length, self.groups, self.size
        caches = [each[: rows * length].view(shape) for each in self.store]
        token, position = (torch.zeros(rows, dtype=torch.long, device=self.device) for _ in range(2))
        room = _Room(
            list(zip(caches[::2], caches[1::2])), token, position,
            said=torch.zeros(length, rows, dtype=torch.long, device=self.device),
            states=self.heard[: rows * length].view(length, rows, -1) if self.states else None,
            count=torch.zeros(1, dtype=torch.long, device=self.device),
            row=torch.arange(rows, device=self.device), step=lambda used: None)
        room.step = self._captured(room) if self.graphed else partial(self._step, room)
        return room

    def _captured(self, room: _Room) -> Callable[[int], None]:
        length = len(room.said)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                room.position.zero_(), room.count.zero_()
                self._step(room, length)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        room.position.zero_(), room.count.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode='thread_local'):  # other threads may go on with their own
            self._step(room, length)
        return lambda used: graph.replay()

    # -- reading ----------------------------------------------------------------------------------------------------

    def _read(self, room: _Room, batch: Batch, image_features: Tensor, banned: Tensor) -> None:
        """Prompts into the caches, the first token into the state."""
        count = len(batch.rows)
        x = self.network.embed(batch, image_features)
        prefixes = shared_prefixes(batch.rows, self.vocabulary.image_id, self.network.config.num_image_tokens)
        ends = [len(row.input_ids) for row in batch.rows]
        with sdpa_kernel(REPEATABLE):
            if prefixes is None:
                x = self._read_beginnings(room, x, None)[room.row[:count], on_device(ends, x.device) - 1]
            else:
                x = self._read_shared(room, x, prefixes, ends)
        room.position.zero_()  # rows of the graph beyond the batch say something, and nobody listens
        room.position[:count] = on_device(ends, x.device)
        room.token[:count] = self._next(self._normed(x), banned)
        room.count.zero_()

    def _read_beginnings(self, room: _Room, x: Tensor, group: Tensor | None) -> Tensor:
        """Beginnings x (G, P, D) of rows, each for the rows of its group, or for one; the states (G, P, D) there."""
        width = x.shape[1]
        count = len(x) if group is None else len(group)
        cos, sin = self.cos[:width, None], self.sin[:width, None]
        for layer, (keys, values) in zip(self.layers, room.caches):
            weights = layer.weights
            q, k, v = project(weights, layer.eps, x, self.heads, self.groups)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            keys[:count, :width], values[:count, :width] = (k, v) if group is None else (k[group], v[group])
            y = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True)
            x = finish(weights, layer.eps, x, y.transpose(1, 2))
        return x

    def _read_shared(self, room: _Room, x: Tensor, prefixes: Prefixes, ends: Sequence[int]) -> Tensor:
        """What rows x (B, W, D) have in common once for each group, and then the rest of each; last states (B, D)."""
        row, longest = room.row[: len(x), None], max(prefixes.lengths)
        group = on_device(prefixes.group, x.device)
        self._read_beginnings(room, x[on_device(prefixes.leaders, x.device), :longest], group)
        starts = [prefixes.lengths[each] for each in prefixes.group]
        rest = max(end - start for start, end in zip(starts, ends))
        # Behind the end of a row is padding: what is written there stands until a new token takes its place.
        place = on_device(starts, x.device)[:, None] + self.column[:rest]
        used = min(longest + rest, len(room.said))
        x, place = x[row, place.clamp(max=x.shape[1] - 1)], place.clamp(max=used - 1)
        cos, sin = self.cos[place][:, :, None], self.sin[place][:, :, None]
        seen = self.column[:used] <= place[..., None]
        for layer, (keys, values) in zip(self.layers, room.caches):
            weights = layer.weights
            q, k, v = project(weights, layer.eps, x, self.heads, self.groups)
            keys[row, place], values[row, place] = rotate(k, cos, sin), v
            y = rest_attention(rotate(q, cos, sin), keys[: len(x), :used], values[: len(x), :used], seen)
            x = finish(weights, layer.eps, x, y)
        return x[row[:, 0], on_device([end - start - 1 for start, end in zip(starts, ends)], x.device)]

    def _step(self, room: _Room, used: int) -> None:
        """Note the last token, read it, choose the next; without a look of the host at anything.

        Attention goes over the first ``used`` columns.
        """
        position = room.position
        room.said.index_copy_(0, room.count, room.token[None])
        x = self.network.token_embeddings()[room.token]
        cos, sin = self.cos[position][:, None], self.sin[position][:, None]
        flash = x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and len(position) > FEW_ROWS
        step = _compiled_step() if self.compile else layer_step
        seen = (position + 1).int() if flash else self.column[:used] <= position[:, None]
        rising = torch.arange(len(position) + 1, dtype=torch.int32, device=x.device)
        starts = (rising, rising * used) if flash else None
        for layer, (keys, values) in zip(self.layers, room.caches):
            x = step(layer.weights, layer.eps, x, cos, sin, room.row, position, seen, keys[:, :used], values[:, :used],
                     starts)
        x = self._normed(x)
        if room.states is not None:
            room.states.index_copy_(0, room.count, x[None])
        room.token.copy_(self._next(x, self.banned))
        position.add_(1)
        room.count.add_(1)

    def _normed(self, x: Tensor) -> Tensor:
        norm = self.network.language_model.model.norm
        return rms_norm(x, norm.weight, norm.variance_epsilon)

    def _next(self, states: Tensor, banned: Tensor) -> Tensor:
        return self.network.logits(states).float().masked_fill(banned, float('-inf')).argmax(dim=-1)


class KeptDecoder:
    """The static decoder of a network: made when it is first asked for, and anew when the network is not what it was.

    It keeps neither the network nor, without LoRA, its weights alive. A copy of it, pickled or deep, is empty.

    Args:
        compile, rows: of :class:`StaticDecoder`.
    """

    def __init__(self, compile: bool = False, rows: int = 1):
        self.compile, self.rows = compile, rows
        self._decoder: StaticDecoder | None = None

    def of(self, network: Sa2VANetwork, vocabulary: Vocabulary) -> StaticDecoder | None:
        """The decoder with the network's present weights; None where it is to be decoded plainly.

        That is where it trains (dropout), under autocast, and where there is an
        :func:`~.static_layers.obstacle`.
        """
        autocast = torch.is_autocast_enabled(network.device.type)
        if network.language_model.training or autocast or obstacle(network, hooks=True):
            self.forget()
            return None
        known = self._decoder
        if known is None or known.vocabulary is not vocabulary or known.signature != signature(network):
            self.forget()  # before another one takes its memory
            self._decoder = StaticDecoder(weakref.proxy(network), vocabulary, self.compile, self.rows, states=True)
        else:
            known.merge()
        return self._decoder

    def forget(self) -> None:
        """Give the memory back."""
        self._decoder = None

    def __reduce__(self) -> tuple:
        return type(self), (self.compile, self.rows)


@cache
def _compiled_step() -> Callable[..., Tensor]:
    from torch._dynamo import config  # takes a second, which most users of an exported model would wait in vain

    # A compilation for each graph, and an error where there are more than allowed: 8 by default.
    config.recompile_limit = max(config.recompile_limit, 64)
    return torch.compile(layer_step, fullgraph=True, dynamic=False)


def _add(transcript: Transcript, tokens: Sequence[Sequence[int]]) -> None:
    for each in tokens:
        transcript.add(each)


def _fetched(said: Tensor) -> Callable[[], list[list[int]]]:
    """Start a copy to the host; the result waits for its end and gives the tokens, a list for each step."""
    if not said.is_cuda:
        return said.tolist
    host = torch.empty(said.shape, dtype=said.dtype, pin_memory=True)
    host.copy_(said, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> list[list[int]]:
        arrived.synchronize()
        return host.tolist()

    return wait
