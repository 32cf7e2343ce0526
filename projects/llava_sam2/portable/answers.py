"""Answers to prompts, generated or given, with what the mask decoder needs of their ``[SEG]`` tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .generation import Decoded, greedy_decode
from .network import Sa2VANetwork
from .sequences import Batch, Row, pad_rows
from .static_decoding import StaticDecoder
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
    decoder: StaticDecoder | None = None,
) -> list[Answer]:
    """Answer prompts, greedily, as one batch. What a row says does not depend on the others.

    Args:
        network: with the weights to answer with.
        vocabulary: tables of its tokenizer.
        rows: prompts, up to where the answer begins.
        features: (I, n, D) image features, output of ``mlp1``.
        max_new_tokens: of an answer, its terminator not counted.
        forced: the answer that every row gives instead of one of its own.
        poll: called before each generated token, or every few; may raise to abandon the work.
        decoder: of the network, with states; faster, and the same but for rounding. Plain decoding takes its place
            where prompt and answer are longer than the model has positions.
    """
    if forced is not None:
        ids = vocabulary.encode(vocabulary.template.ended(forced))
        decoded = [Decoded(ids[:vocabulary.caption_length(ids)], True) for _ in rows]
        texts, seg_embeds = [forced] * len(rows), None
    else:
        said = None
        options = dict(forbidden=vocabulary.on('never_said', network.device), poll=poll, stop_ids=vocabulary.stop_ids)
        if decoder is not None:
            with decoder.lock:
                said = _decoded_statically(network, vocabulary, rows, features, max_new_tokens, decoder, options)
        decoded, seg_embeds = said or (greedy_decode(
            network, _pad(network, vocabulary, rows, 'left'), features, vocabulary, max_new_tokens, **options), None)
        stops = vocabulary.stop_ids
        texts = [vocabulary.decode([index for index in each.said if index not in stops]) for each in decoded]
    if seg_embeds is None:
        seg_embeds = _seg_embeds(network, vocabulary, rows, [each.ids for each in decoded], features)
    return [
        Answer(each.ids, vocabulary.template.before_end(text).strip(), each.ended, embeds)
        for each, text, embeds in zip(decoded, texts, seg_embeds)
    ]


def _decoded_statically(
    network: Sa2VANetwork, vocabulary: Vocabulary, rows: Sequence[Row], features: torch.Tensor, max_new_tokens: int,
    decoder: StaticDecoder, options: Mapping[str, Any],
) -> tuple[list[Decoded], Sequence[torch.Tensor]] | None:
    """What is said, and the embeddings of its ``[SEG]``; None where there are too few positions for it."""
    limit = min(max_new_tokens, decoder.most_new_tokens(rows))
    if limit < 1:
        return None
    decoded = decoder.decode(_pad(network, vocabulary, rows, 'right'), features, limit, **options)
    if limit < max_new_tokens and not all(each.ended for each in decoded):
        return None
    return decoded, _said_embeds(network, vocabulary, [each.ids for each in decoded], decoder)


def _said_embeds(network: Sa2VANetwork, vocabulary: Vocabulary, answers: Sequence[list[int]], decoder: StaticDecoder
                 ) -> Sequence[torch.Tensor]:
    """(K, d) per row, from the states that the decoder had when it read the answers."""
    found = [(row, place) for row, ids in enumerate(answers) for place, token in enumerate(ids)
             if token == vocabulary.seg_id]
    if not found:
        last = network.text_hidden_fcs[-1]
        return [last.weight.new_zeros(0, last.out_features)] * len(answers)
    embeds = network.text_hidden_fcs(decoder.states_at(*zip(*found)))
    return embeds.split([ids.count(vocabulary.seg_id) for ids in answers])


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
