"""The caption bridge: from the student's caption logits to caption embeddings that a gradient can pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from mmengine.registry import MODELS

from llava_sam2.portable.sequences import on_device
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.randomness import exponential


class _HardLookup(torch.autograd.Function):
    """Forward: one embedding row per token. Backward: the gradient of the soft mixture over the candidates.

    Saving (N, k) ids instead of the gathered (N, k, D) rows keeps memory at O(N (k + D)): docs/decisions.md,
    "Hard lookup with a custom backward".
    """

    #: Tokens whose candidates' rows are gathered at once in the backward pass.
    CHUNK = 64

    @staticmethod
    def forward(ctx, probs, candidates, hard, weight):
        ctx.save_for_backward(candidates, hard, weight)
        ctx.dtype = probs.dtype
        return weight[candidates.gather(1, hard[:, None])[:, 0]]

    @staticmethod
    def backward(ctx, grad):
        candidates, hard, weight = ctx.saved_tensors
        grad_probs = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_probs = torch.cat([
                torch.einsum('nd,nkd->nk', g, weight[c].to(g.dtype))
                for g, c in zip(grad.split(_HardLookup.CHUNK), candidates.split(_HardLookup.CHUNK))
            ]).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            rows = candidates.gather(1, hard[:, None])[:, 0]
            grad_weight = torch.zeros_like(weight).index_add_(0, rows, grad.to(weight.dtype))
        return grad_probs, None, None, grad_weight


@dataclass
class BridgeOutput:
    """Soft captions and what the log shows of them.

    Attributes:
        embeds: per row, (n, D) caption embeddings.
        ids: per row, the n sampled token ids, in the form that stands in the slot.
        entropy: (), mean entropy of the student's distribution over the candidates, in nats.
        agreement: (), share of sampled tokens that are the student's own best.
        log_probs: (R,), log-probability of each sampled caption under the student's distribution over the candidates
            that it was drawn from, the sum over its tokens; a bridge may leave it out, and then cannot be rewarded.
        best: per row, the student's own best tokens in the same form; left out together with ``log_probs``.
    """

    embeds: list[torch.Tensor]
    ids: list[list[int]]
    entropy: torch.Tensor
    agreement: torch.Tensor
    log_probs: torch.Tensor | None = None
    best: list[list[int]] | None = None


@MODELS.register_module()
class CaptionBridge:
    """Straight-through Gumbel-softmax over the k best tokens of each caption position.

    Forward is the embedding of one sampled token (Gumbel-max over the candidates); backward is the gradient of the
    tempered softmax mixture (Jang et al. 2017, straight-through estimator).

    Args:
        topk: candidates per position.
        tau: temperature of the backward mixture.
    """

    def __init__(self, topk: int = 512, tau: float = 0.7):
        if topk < 1 or tau <= 0:
            raise ValueError(f'the bridge needs topk >= 1 and tau > 0, got {topk} and {tau}')
        self.topk = topk
        self.tau = tau

    def __call__(
        self,
        logits: Sequence[torch.Tensor],
        keys: torch.Tensor,
        weight: torch.Tensor,
        vocabulary: Vocabulary,
    ) -> BridgeOutput:
        """Sample captions.

        Args:
            logits: per row, (n, V) at the caption positions.
            keys: (R,) int64, on the device of the logits; a row's noise depends on its own key alone.
            weight: (V, D) embedding matrix; gets a gradient only when it is trained.
            vocabulary: says which tokens a caption may contain and which form follows a space.
        """
        lengths = [len(part) for part in logits]
        device = weight.device
        # fp32: in bf16 the noise takes 1 836 distinct values and never exceeds 5.53.
        scores = torch.cat(list(logits)).float().masked_fill(vocabulary.on('not_in_caption', device), float('-inf'))
        values, candidates = scores.topk(min(self.topk, len(vocabulary.ordinary_ids)), dim=-1)
        rows, places = on_device(
            [(row, place) for row, length in enumerate(lengths) for place in range(length)], device).unbind(1)
        noisy = values - exponential(keys[rows], values.shape[1], places).log()
        hard = noisy.argmax(dim=-1)
        probs = (noisy / self.tau).softmax(dim=-1)
        # The text before the slot ends without a space, so the first caption token brings it along.
        first = on_device([sum(lengths[:row]) for row in range(len(lengths))], device)
        spaced = vocabulary.on('with_leading_space', device)[candidates[first]]
        candidates = candidates.index_copy(0, first, spaced)  # topk's own backward needs the original
        embeds = _HardLookup.apply(probs, candidates, hard, weight)
        tokens = torch.stack((candidates.gather(1, hard[:, None])[:, 0], candidates[:, 0])).tolist()  # one wait
        ids, best = ([each[stop - length : stop] for length, stop in zip(lengths, accumulate(lengths))]
                     for each in tokens)
        log_probs = values.log_softmax(dim=-1)
        known = log_probs.detach()
        drawn = log_probs.gather(1, hard[:, None])[:, 0]
        return BridgeOutput(
            embeds=list(embeds.split(lengths)),
            ids=ids,
            entropy=-(known.exp() * known).sum(dim=-1).mean(),
            agreement=(hard == 0).float().mean(),
            log_probs=drawn.new_zeros(len(lengths)).index_add(0, rows, drawn),
            best=best,
        )
