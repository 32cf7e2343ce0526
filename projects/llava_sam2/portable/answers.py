"""Answers to prompts, generated or given, with what the mask decoder needs of their ``[SEG]`` tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from .generation import Decoded, greedy_decode
from .network import Sa2VANetwork
from .sequences import Batch, Row, pad_rows
from .vocabulary import Vocabulary


@dataclass
class Answer:
    """What is said to one prompt.

    Attributes:
        ids: its tokens before the one in which the terminator begins.
        text: without the terminator and blanks round it.
        ended: whether it came to its terminator.
        seg_embeds: (K, d), one per ``[SEG]`` in ``ids``, for ``Sa2VANetwork.decode_masks``.
    """

    ids: list[int]
    text: str
    ended: bool
    seg_embeds: torch.Tensor


@torch.no_grad()
def answer_rows(
    network: Sa2VANetwork,
    vocabulary: Vocabulary,
    rows: Sequence[Row],
    features: torch.Tensor,
    max_new_tokens: int,
    forced: str | None = None,
    poll: Callable[[], None] | None = None,
) -> list[Answer]:
    """Answer prompts, greedily, as one batch. What a row says does not depend on the others.

    Args:
        network: with the weights to answer with.
        vocabulary: tables of its tokenizer.
        rows: prompts, up to where the answer begins.
        features: (I, n, D) image features, output of ``mlp1``.
        max_new_tokens: of an answer, its terminator not counted.
        forced: the answer that every row gives instead of one of its own.
        poll: called before each generated token; may raise to abandon the work.
    """
    if forced is None:
        decoded = greedy_decode(
            network, _pad(network, vocabulary, rows, 'left'), features, vocabulary, max_new_tokens,
            forbidden=_never_said(vocabulary), poll=poll, stop_ids=vocabulary.stop_ids,
        )
        stops = vocabulary.stop_ids
        texts = [vocabulary.decode([index for index in each.said if index not in stops]) for each in decoded]
    else:
        ids = vocabulary.encode(vocabulary.template.ended(forced))
        decoded = [Decoded(ids[:vocabulary.caption_length(ids)], True) for _ in rows]
        texts = [forced] * len(rows)
    seg_embeds = _seg_embeds(network, vocabulary, rows, [each.ids for each in decoded], features)
    return [
        Answer(each.ids, vocabulary.template.before_end(text).strip(), each.ended, embeds)
        for each, text, embeds in zip(decoded, texts, seg_embeds)
    ]


def _seg_embeds(
    network: Sa2VANetwork, vocabulary: Vocabulary, rows: Sequence[Row], answers: Sequence[list[int]],
    features: torch.Tensor,
) -> list[torch.Tensor]:
    """(K, d) per row, from the states of one pass over prompt and answer, as in training."""
    segments = [index for index, ids in enumerate(answers) if vocabulary.seg_id in ids]
    embeds = [features.new_zeros(0, network.text_hidden_fcs[-1].out_features)] * len(rows)
    if not segments:
        return embeds
    whole = [
        replace(rows[index], input_ids=rows[index].input_ids + answers[index],
                labels=rows[index].labels + answers[index])
        for index in segments
    ]
    states = network.hidden_states(_pad(network, vocabulary, whole, 'right'), features)
    for index, state in zip(segments, states):
        start = len(rows[index].input_ids)
        places = [start + place for place, token in enumerate(answers[index]) if token == vocabulary.seg_id]
        embeds[index] = network.text_hidden_fcs(state[places])
    return embeds


def _pad(network: Sa2VANetwork, vocabulary: Vocabulary, rows: Sequence[Row], side: str) -> Batch:
    return pad_rows(
        rows, vocabulary.pad_id, vocabulary.image_id, network.config.num_image_tokens, network.device, side
    )


def _never_said(vocabulary: Vocabulary) -> torch.Tensor:
    """(V,) bool: rows that are no tokens, and the image token, which would ask for features."""
    never = torch.zeros(vocabulary.size, dtype=torch.bool)
    never[len(vocabulary.tokenizer):] = True
    never[vocabulary.image_id] = True
    return never
