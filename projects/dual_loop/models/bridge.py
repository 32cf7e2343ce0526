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
        ids: per row, the n sampled or given token ids, in the form that stands in the slot.
        entropy: (), mean entropy of the student's distribution over the candidates, in nats.
        agreement: (), share of these tokens that are the student's own best.
        log_probs: (R,), log-probability of each sampled caption under the student's distribution over the candidates
            that it was drawn from, the sum over its tokens; None where nothing was sampled. A bridge may leave it out,
            and then cannot be rewarded.
        best: per row, the student's own best tokens in the same form; goes with ``log_probs``.
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
    tempered softmax mixture (Jang et al. 2017, straight-through estimator). With given tokens nothing is sampled:
    forward is their embedding, backward the gradient of the mixture without noise.

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
        given: Sequence[Sequence[int]] | None = None,
    ) -> BridgeOutput:
        """Sample captions, or take given ones.

        Args:
            logits: per row, (n, V) at the caption positions.
            keys: (R,) int64, on the device of the logits; a row's noise depends on its own key alone.
            weight: (V, D) embedding matrix; gets a gradient only when it is trained.
            vocabulary: says which tokens a caption may contain and which form follows a space.
            given: per row, n token ids that stand in the slot in place of sampled ones. Each is a candidate with the
                student's own logit, beside the ``topk - 1`` best others, also where it is not among the best.
        """
        lengths = [len(part) for part in logits]
        device = weight.device
        # fp32: in bf16 the noise takes 1 836 distinct values and never exceeds 5.53.
        scores, banned = torch.cat(list(logits)).float(), vocabulary.on('not_in_caption', device)
        count = min(self.topk, len(vocabulary.ordinary_ids))
        if given is None:
            values, candidates = scores.masked_fill(banned, float('-inf')).topk(count, dim=-1)
            rows, places = on_device(
                [(row, place) for row, length in enumerate(lengths) for place in range(length)], device).unbind(1)
            noisy = values - exponential(keys[rows], values.shape[1], places).log()
            hard, best = noisy.argmax(dim=-1), torch.zeros((), dtype=torch.long, device=device)
        else:
            forced = on_device([index for ids in given for index in ids], device)[:, None]
            banned = banned.expand_as(scores).scatter(1, forced, True)
            values, candidates = scores.masked_fill(banned, float('-inf')).topk(count - 1, dim=-1)
            values = noisy = torch.cat([scores.gather(1, forced), values], dim=1)
            candidates = torch.cat([forced, candidates], dim=1)
            hard, best = torch.zeros_like(forced[:, 0]), values.argmax(dim=-1)
        probs = (noisy / self.tau).softmax(dim=-1)
        # The text before the slot ends without a space, so the first caption token brings it along.
        first = on_device([sum(lengths[:row]) for row in range(len(lengths))], device)
        spaced = vocabulary.on('with_leading_space', device)[candidates[first]]
        candidates = candidates.index_copy(0, first, spaced)  # topk's own backward needs the original
        embeds = _HardLookup.apply(probs, candidates, hard, weight)
        tokens = torch.stack((candidates.gather(1, hard[:, None])[:, 0], candidates[:, 0])).tolist()  # one wait
        ids, best_ids = ([each[stop - length : stop] for length, stop in zip(lengths, accumulate(lengths))]
                         for each in tokens)
        log_probs = values.log_softmax(dim=-1)
        known = log_probs.detach()
        drawn = log_probs.gather(1, hard[:, None])[:, 0]
        return BridgeOutput(
            embeds=list(embeds.split(lengths)),
            ids=ids,
            entropy=-(known.exp() * known).sum(dim=-1).mean(),
            agreement=(hard == best).float().mean(),
            log_probs=drawn.new_zeros(len(lengths)).index_add(0, rows, drawn) if given is None else None,
            best=best_ids if given is None else None,
        )
