"""Greedy decoding near the memory roof: weights at fixed addresses, a static cache, one captured graph per token.

Reading all weights once per token is what a small batch cannot go below. The plain way (``generation.greedy_decode``)
spends ten to thirty times as long on launching kernels: LoRA unmerged, a cache that grows, a mask that is built anew.
Rows are padded on the right here, so a row's position is its column: prompts are read by plain causal attention without
a mask, and each new token takes the place of the row's first padding.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .generation import Decoded, Transcript
from .network import Sa2VANetwork
from .sequences import Batch, on_device
from .vocabulary import Vocabulary

#: Tokens between two looks of the host at what was said. Two such pieces may be computed in vain.
PIECE = 8
#: Caches are as long as a multiple of this, so that a graph serves prompts of many lengths.
LENGTH_STEP = 256
#: Up to so many rows attention as plain products is faster than the flash kernel (H100: 3.8 against 3.9 ms a token with
#: 2 rows, 5.1 against 4.5 ms with 16).
FEW_ROWS = 4


class StaticDecoder:
    """A decoder with caches of its own, and with a merged copy of the layers where they carry LoRA.

    Memory: with LoRA the decoder layers once more, and rows * length of keys and values. Graphs are captured on first
    use for each power of two of rows; on the CPU the same steps run without a graph.

    Args:
        network: the network to decode with.
        vocabulary: tables of the tokenizer.
        compile: compile the step of a decoder layer (inductor; a few seconds for each power of two of rows).

    Raises:
        ValueError: the network is not one that can be decoded so, see :func:`obstacle`.
    """

    def __init__(self, network: Sa2VANetwork, vocabulary: Vocabulary, compile: bool = False):
        if reason := obstacle(network):
            raise ValueError(f'no static decoding: {reason}')
        self.network, self.vocabulary, self.compile = network, vocabulary, compile
        model, config = network.language_model.model, network.language_model.config
        self.layers = [_Layer(layer) for layer in model.layers]
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size = model.layers[0].self_attn.head_dim
        self.device = network.device
        self.rows = self.length = 0
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.merge()

    @torch.no_grad()
    def merge(self, values: Mapping[nn.Parameter, Tensor] | None = None) -> None:
        """Write W + scaling * B A into the copy of the layers; to be called whenever LoRA has changed.

        Args:
            values: of LoRA's A and B in place of the parameters' own.
        """
        for layer in self.layers:
            layer.merge(values or {})

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
        count, limit = len(batch.rows), max_new_tokens + self.vocabulary.num_terminator_tokens
        self._reserve(count, batch.input_ids.shape[1] + limit)
        rows = 1 << (count - 1).bit_length()
        self.banned.zero_() if forbidden is None else self.banned.copy_(forbidden)
        step = self._captured(rows)
        self._read(batch, image_features, self.banned if forbidden_first is None else
                   forbidden_first.to(self.banned.device))
        transcript = Transcript(count, self.vocabulary, max_new_tokens, stop_ids)
        piece = PIECE if self.token.is_cuda else 1
        pending: list[Callable[[], list[list[int]]]] = []
        for start in range(0, limit, piece):
            if poll is not None:
                poll()
            stop = min(start + piece, limit)
            for _ in range(start, stop):
                step()
            # Looked at while the next piece is running, so that the device does not wait for the host.
            pending.append(_fetched(self.said[start:stop, :count]))
            if len(pending) > 1 or not self.token.is_cuda:
                for tokens in pending.pop(0)():
                    transcript.add(tokens)
                if transcript.finished:
                    break
        for fetched in pending:
            for tokens in fetched():
                transcript.add(tokens)
        return transcript.decoded()

    # -- what is fixed between tokens -------------------------------------------------------------------------------

    def _reserve(self, rows: int, length: int) -> None:
        """Make room for so many rows and tokens; what was captured for less is forgotten."""
        longest = self.network.language_model.config.max_position_embeddings
        if length > longest:
            raise ValueError(f'prompt and answer take {length} tokens, but the language model has {longest} positions')
        if rows <= self.rows and length <= self.length:
            return
        like = self.network.token_embeddings().detach()
        self.graphs.clear()
        self.rows = max(self.rows, 1 << (rows - 1).bit_length())
        self.length = max(self.length, min(longest, -(-length // LENGTH_STEP) * LENGTH_STEP))
        shape = (self.rows, self.length, self.groups, self.size)
        self.caches = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in self.layers]
        self.column = torch.arange(self.length, device=like.device)
        cos, sin = self.network.language_model.model.rotary_emb(like, self.column[None])
        self.cos, self.sin = cos[0].to(like.dtype), sin[0].to(like.dtype)
        # The state of a step: last token, its position, and all that was said since the prompt.
        self.token, self.position = (torch.zeros(self.rows, dtype=torch.long, device=like.device) for _ in range(2))
        self.said = torch.zeros(self.length, self.rows, dtype=torch.long, device=like.device)
        self.count = torch.zeros(1, dtype=torch.long, device=like.device)
        self.row = torch.arange(self.rows, device=like.device)
        self.banned = torch.zeros(self.vocabulary.size, dtype=torch.bool, device=like.device)

    def _captured(self, rows: int) -> Callable[[], None]:
        if not self.token.is_cuda:
            return lambda: self._step(rows)
        if rows not in self.graphs:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.position.zero_(), self.count.zero_()
                    self._step(rows)
            torch.cuda.current_stream().wait_stream(stream)
            self.position.zero_(), self.count.zero_()
            self.graphs[rows] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[rows]):
                self._step(rows)
        return self.graphs[rows].replay

    # -- reading ----------------------------------------------------------------------------------------------------

    def _read(self, batch: Batch, image_features: Tensor, banned: Tensor) -> None:
        """Prompts into the caches, the first token into the state."""
        x = self.network.embed(batch, image_features)
        count, width = x.shape[:2]
        cos, sin = self.cos[:width, None], self.sin[:width, None]
        for layer, (keys, values) in zip(self.layers, self.caches):
            q, k, v = layer.project(x, self.heads, self.groups)
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
            keys[:count, :width], values[:count, :width] = k, v
            y = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True)
            x = layer.finish(x, y.transpose(1, 2))
        ends = on_device([len(row.input_ids) for row in batch.rows], x.device)
        self.position.zero_()  # rows of the graph beyond the batch say something, and nobody listens
        self.position[:count] = ends
        self.token[:count] = self._next(x[self.row[:count], ends - 1], banned)
        self.count.zero_()

    def _step(self, rows: int) -> None:
        """Note the last token, read it, choose the next; without a look of the host at anything."""
        token, position = self.token[:rows], self.position[:rows]
        self.said[:, :rows].index_copy_(0, self.count, token[None])
        x = self.network.token_embeddings()[token]
        cos, sin = self.cos[position][:, None], self.sin[position][:, None]
        flash = x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and rows > FEW_ROWS
        layer_step = _compiled_step() if self.compile else _layer_step
        seen = (position + 1).int() if flash else self.column <= position[:, None]
        rising = torch.arange(rows + 1, dtype=torch.int32, device=x.device)
        starts = (rising, rising * self.length) if flash else None
        for layer, (keys, values) in zip(self.layers, self.caches):
            x = layer_step(layer.weights, layer.eps, x, cos, sin, self.row[:rows], position, seen, keys[:rows],
                           values[:rows], starts)
        token.copy_(self._next(x, self.banned))
        position.add_(1)
        self.count.add_(1)

    def _next(self, states: Tensor, banned: Tensor) -> Tensor:
        norm = self.network.language_model.model.norm
        logits = self.network.logits(_rms_norm(states, norm.weight, norm.variance_epsilon))
        return logits.float().masked_fill(banned, float('-inf')).argmax(dim=-1)


def obstacle(network: Sa2VANetwork) -> str | None:
    """Why a network cannot be decoded by :class:`StaticDecoder`; None if it can."""
    language_model = network.language_model
    model = language_model.model
    if type(model.embed_tokens) is not nn.Embedding or type(language_model.lm_head) is not nn.Linear:
        return 'rows of the embedding or of the head are trained'
    for layer in model.layers:
        for part in (part for parts in _linears(layer) for part in parts):
            adapters = getattr(part, 'lora_A', None)
            if adapters is None and type(part) is not nn.Linear:
                return f'a layer is a {type(part).__name__}'
            if adapters is not None and (list(adapters) != ['default'] or getattr(part, 'use_dora', {}).get('default')):
                return 'a layer carries another adapter than one plain LoRA'
    return None


class _Layer:
    """Weights of one decoder layer: a merged copy, q, k, v and gate, up side by side; without LoRA its own."""

    def __init__(self, layer: nn.Module):
        self.linears = _linears(layer)
        self.eps = layer.input_layernorm.variance_epsilon
        self.norms = layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()
        bases = [[getattr(part, 'base_layer', part) for part in parts] for parts in self.linears]
        self.merged = any(hasattr(part, 'lora_A') for parts in self.linears for part in parts)
        biases = [base.bias for base in bases[0]]
        self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])
        self.matrices: list[tuple[Tensor, ...]] = [
            (torch.cat([base.weight.detach() for base in each]), ) if self.merged else
            tuple(base.weight.detach() for base in each) for each in bases]

    @property
    def weights(self) -> tuple:
        return *self.norms, self.bias, *self.matrices

    def merge(self, values: Mapping[nn.Parameter, Tensor]) -> None:
        for parts, (copy, *_) in zip(self.linears, self.matrices) if self.merged else ():
            for part, target in zip(parts, copy.split([part.out_features for part in parts])):
                if not hasattr(part, 'lora_A'):
                    continue
                a, b = (values.get(each['default'].weight, each['default'].weight).to(target)
                        for each in (part.lora_A, part.lora_B))
                torch.addmm(part.base_layer.weight.detach(), b, a, alpha=part.scaling['default'], out=target)

    def project(self, x: Tensor, heads: int, groups: int) -> tuple[Tensor, ...]:
        return _project(self.weights, self.eps, x, heads, groups)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        return _finish(self.weights, self.eps, x, attended)


def _linears(layer: nn.Module) -> list[tuple[nn.Module, ...]]:
    attention, mlp = layer.self_attn, layer.mlp
    return [(attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj, ),
            (mlp.gate_proj, mlp.up_proj), (mlp.down_proj, )]


# -- one layer, as functions of tensors, so that one compilation serves all layers ----------------------------------


def _linear(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    return torch.cat([F.linear(x, matrix) for matrix in matrices], dim=-1) if len(matrices) > 1 else \
        F.linear(x, matrices[0])


def _project(weights: tuple, eps: float, x: Tensor, heads: int, groups: int) -> tuple[Tensor, ...]:
    """Queries (..., heads, d), keys and values (..., groups, d)."""
    norm, _, bias, qkv, *_ = weights
    mixed = _linear(_rms_norm(x, norm, eps), qkv)
    mixed = mixed if bias is None else mixed + bias
    return mixed.unflatten(-1, (heads + 2 * groups, -1)).split([heads, groups, groups], dim=-2)


def _finish(weights: tuple, eps: float, x: Tensor, attended: Tensor) -> Tensor:
    """Output (..., D) of a layer with the input x from what its heads (..., heads, d) have found."""
    _, norm, _, _, out, gate_up, down = weights
    x = x + _linear(attended.flatten(-2), out)
    gate, up = _linear(_rms_norm(x, norm, eps), gate_up).chunk(2, dim=-1)
    return x + _linear(F.silu(gate) * up, down)


def _layer_step(weights: tuple, eps: float, x: Tensor, cos: Tensor, sin: Tensor, row: Tensor, position: Tensor,
                seen: Tensor, keys: Tensor, values: Tensor, starts: tuple[Tensor, Tensor] | None) -> Tensor:
    """One token of each row through one layer; keys and values (R, L, groups, d) are written at its position."""
    rows, length, groups, size = keys.shape
    heads = weights[4][0].shape[1] // size
    q, k, v = _project(weights, eps, x, heads, groups)
    q = _rotate(q, cos, sin)
    keys[row, position] = _rotate(k, cos, sin)
    values[row, position] = v
    if starts is not None:  # torch's own flash kernel, with the number of keys of each row counted on the device
        y = torch.ops.aten._flash_attention_forward(
            q, keys.reshape(rows * length, groups, size), values.reshape(rows * length, groups, size), *starts, 1,
            length, 0.0, False, False, scale=size**-0.5, seqused_k=seen)[0]
    else:  # the query heads of a group are queries of one head, so keys and values need not be repeated
        scores = (q.view(rows, groups, -1, size) @ keys.permute(0, 2, 3, 1)).float() * size**-0.5
        shares = scores.masked_fill(~seen[:, None, None], float('-inf')).softmax(-1).to(x.dtype)
        y = (shares @ values.transpose(1, 2)).reshape(rows, heads, size)
    return _finish(weights, eps, x, y)


@cache
def _compiled_step() -> Callable[..., Tensor]:
    return torch.compile(_layer_step, fullgraph=True, dynamic=False)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers' Qwen2RMSNorm, its roundings included."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of heads (..., d), cos and sin (..., d)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


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
