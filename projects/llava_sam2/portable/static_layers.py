"""A decoder layer of Qwen2 as functions of tensors, for static decoding: one compilation serves all layers."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Sa2VANetwork

#: Norms of attention and MLP; biases of q, k, v; matrices of q, k, v, of the output, of gate and up, of down. Those in
#: one tuple read the same input and may be one matrix, or one each.
Weights = tuple[Tensor, Tensor, tuple[Tensor | None, ...], tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...],
                tuple[Tensor, ...]]


def obstacle(network: Sa2VANetwork, hooks: bool = False) -> str | None:
    """Why a network cannot be decoded by ``StaticDecoder``, which calls no module of its layers; None if it can.

    Args:
        network: any.
        hooks: also where somebody waits for such a call. In training it is mostly one who watches gradients.
    """
    language_model = network.language_model
    model, config = language_model.model, language_model.config
    if type(model.embed_tokens) is not nn.Embedding or type(language_model.lm_head) is not nn.Linear:
        return 'rows of the embedding or of the head are trained'
    if config.hidden_act != 'silu' or set(config.layer_types) != {'full_attention'}:
        return f'layers have {config.hidden_act} or attention of the kinds {", ".join(sorted(set(config.layer_types)))}'
    if model.rotary_emb.rope_type == 'longrope':
        return 'the frequencies of its positions depend on the length'
    for name, module in language_model.named_modules() if hooks else ():
        # accelerate puts another forward in its place: it moves inputs or weights when it is called.
        if module._forward_hooks or module._forward_pre_hooks or 'forward' in vars(module):
            return f'{name or "the language model"} has a hook'
    for layer in model.layers:
        for part in (part for parts in linears(layer) for part in parts):
            if reason := _part_obstacle(part):
                return reason
    tensors = [*_tensors(network)]
    if len({tensor.device for tensor in tensors}) > 1 or tensors[0].device.type == 'meta':
        return 'it does not lie on one device'
    if len({tensor.dtype for tensor in tensors}) > 1:
        return 'its weights are of several types'
    return None


def _part_obstacle(part: nn.Module) -> str | None:
    base = getattr(part, 'base_layer', part)
    if type(base) is not nn.Linear or type(base.weight.data) is not Tensor:
        return f'a layer is a {type(base).__name__} of {type(base.weight.data).__name__}s'
    if part is base:
        return None
    adapters = getattr(part, 'lora_A', None)
    if adapters is None:
        return f'a layer is a {type(part).__name__}'
    plain = list(adapters) == ['default'] == list(part.active_adapters) and not part.merged \
        and not part.disable_adapters and not any(getattr(part, 'use_dora', {}).values()) \
        and not any(getattr(part, 'lora_variant', {}).values()) and part.lora_B['default'].bias is None
    return None if plain else 'a layer carries another adapter than one plain LoRA, or one that is off or merged'


def signature(network: Sa2VANetwork) -> tuple:
    """What a decoder and its captured graphs rely on: kinds of the layers, addresses, shapes and types of weights."""
    layers = network.language_model.model.layers
    return (*(type(part) for layer in layers for parts in linears(layer) for part in parts),
            *((tensor.data_ptr(), tensor.shape, tensor.dtype, tensor.device) for tensor in _tensors(network)))


def _tensors(network: Sa2VANetwork):
    """Weights that are read as they stand; LoRA's own are not."""
    model = network.language_model.model
    yield from (model.embed_tokens.weight, model.norm.weight, *network.language_model.lm_head.parameters())
    for layer in model.layers:
        yield from (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
        for part in (part for parts in linears(layer) for part in parts):
            yield from getattr(part, 'base_layer', part).parameters(recurse=False)


def linears(layer: nn.Module) -> list[tuple[nn.Module, ...]]:
    """The layer's matrices, those together that read the same."""
    attention, mlp = layer.self_attn, layer.mlp
    return [(attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj, ),
            (mlp.gate_proj, mlp.up_proj), (mlp.down_proj, )]


class StaticLayer:
    """Weights of one decoder layer: where it carries LoRA a merged copy, q, k, v and gate, up side by side; else its
    own, asked for anew each time, so that nothing keeps alive what the network has put away."""

    def __init__(self, layer: nn.Module):
        self.layer = layer
        self.eps = layer.input_layernorm.variance_epsilon
        parts = linears(layer)
        self.copies: list[Tensor] | None = None
        if any(hasattr(part, 'lora_A') for each in parts for part in each):
            bases = [[getattr(part, 'base_layer', part) for part in each] for each in parts]
            self.copies = [torch.cat([base.weight.detach() for base in each]) for each in bases]
            biases = [base.bias for base in bases[0]]
            self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])

    @property
    def weights(self) -> Weights:
        norms = self.layer.input_layernorm.weight.detach(), self.layer.post_attention_layernorm.weight.detach()
        if self.copies is not None:
            return *norms, (self.bias, ), *((copy, ) for copy in self.copies)
        parts = linears(self.layer)
        biases = tuple(None if part.bias is None else part.bias.detach() for part in parts[0])
        matrices = (tuple(part.weight.detach() for part in each) for each in parts)
        return *norms, biases, *matrices

    def merge(self, values: Mapping[nn.Parameter, Tensor]) -> None:
        """Write W + scaling * B A into the copy, with other ``values`` of A and B where given."""
        if self.copies is None:
            return
        parts = linears(self.layer)
        for each, copy in zip(parts, self.copies):
            for part, target in zip(each, copy.split([part.out_features for part in each])):
                if not hasattr(part, 'lora_A'):
                    target.copy_(part.weight)
                    continue
                a, b = (values.get(adapter['default'].weight, adapter['default'].weight).to(target)
                        for adapter in (part.lora_A, part.lora_B))
                torch.addmm(part.base_layer.weight, b, a, alpha=part.scaling['default'], out=target)
        if self.bias is not None:
            torch.cat([getattr(part, 'base_layer', part).bias for part in parts[0]], out=self.bias)


def _linear(x: Tensor, matrices: Sequence[Tensor], biases: Sequence[Tensor | None] | None = None) -> Tensor:
    results = [F.linear(x, matrix, bias) for matrix, bias in zip(matrices, biases or [None] * len(matrices))]
    return results[0] if len(results) == 1 else torch.cat(results, dim=-1)


def project(weights: Weights, eps: float, x: Tensor, heads: int, groups: int) -> tuple[Tensor, ...]:
    """Queries (..., heads, d), keys and values (..., groups, d)."""
    norm, _, biases, qkv, *_ = weights
    mixed = _linear(rms_norm(x, norm, eps), qkv, biases)
    return mixed.unflatten(-1, (heads + 2 * groups, -1)).split([heads, groups, groups], dim=-2)


def finish(weights: Weights, eps: float, x: Tensor, attended: Tensor) -> Tensor:
    """Output (..., D) of a layer with the input x from what its heads (..., heads, d) have found."""
    _, norm, _, _, out, gate_up, down = weights
    x = x + _linear(attended.flatten(-2), out)
    gate, up = _linear(rms_norm(x, norm, eps), gate_up).chunk(2, dim=-1)
    return x + _linear(F.silu(gate) * up, down)


def layer_step(weights: Weights, eps: float, x: Tensor, cos: Tensor, sin: Tensor, row: Tensor, position: Tensor,
               seen: Tensor, keys: Tensor, values: Tensor, starts: tuple[Tensor, Tensor] | None) -> Tensor:
    """One token of each row through one layer; keys and values (R, L, groups, d) are written at its position.

    With ``starts`` of the rows among queries and among keys, attention is the flash kernel's, and ``seen`` (R,) numbers
    of keys; else ``seen`` (R, L) says which ones.
    """
    rows, length, groups, size = keys.shape
    heads = weights[4][0].shape[1] // size
    q, k, v = project(weights, eps, x, heads, groups)
    q = rotate(q, cos, sin)
    keys[row, position] = rotate(k, cos, sin)
    values[row, position] = v
    if starts is not None:  # torch's own kernel, with the number of keys of each row counted on the device
        y = torch.ops.aten._flash_attention_forward(
            q, keys.reshape(rows * length, groups, size), values.reshape(rows * length, groups, size), *starts, 1,
            length, 0.0, False, False, scale=size**-0.5, seqused_k=seen)[0]
    else:  # the query heads of a group are queries of one head, so keys and values need not be repeated
        scores = (q.view(rows, groups, -1, size) @ keys.permute(0, 2, 3, 1)).float() * size**-0.5
        shares = scores.masked_fill(~seen[:, None, None], float('-inf')).softmax(-1).to(x.dtype)
        y = (shares @ values.transpose(1, 2)).reshape(rows, heads, size)
    return finish(weights, eps, x, y)


def rest_attention(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """What some tokens q (B, S, heads, d) of each row find in keys and values (B, C, groups, d), those that ``seen``
    (B, S, C) says; (B, S, heads, d)."""
    rows, count, heads, _ = q.shape
    groups = keys.shape[2]
    each = heads // groups  # the query heads of a group are queries of one head, as above
    q = q.unflatten(2, (groups, each)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = seen[:, None, None].expand(-1, -1, each, -1, -1).flatten(2, 3)
    y = F.scaled_dot_product_attention(q, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask)
    return y.unflatten(2, (each, count)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers' Qwen2RMSNorm, its roundings included."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of heads (..., d), cos and sin (..., d)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin
