"""What the loops must know about single tokens: which may be sampled, where the terminator begins, leading spaces."""

import re
from collections.abc import Sequence
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

from .prompts import ADDED_TOKENS, IMG_CONTEXT, IMG_END, IMG_START, SEG
from .templates import ChatTemplate

#: Texts whose tokens a vocabulary remembers, its runs of image tokens counted as one.
REMEMBERED_TEXTS = 4096
_IMAGE_RUN = re.compile(f'(?:{re.escape(IMG_CONTEXT)})+')
_BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}


class Vocabulary:
    """Tables over a byte-level BPE tokenizer.

    Args:
        tokenizer: with the image tags, ``[SEG]`` and the region tags as single tokens.
        size: rows of the embedding matrix; rows beyond the tokenizer are reserved and never sampled.
        template: markup of the dialogues, in which the terminator is told.

    Raises:
        ValueError: when a token of the protocol is not a single token, or the model has too few rows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int, template: ChatTemplate):
        self.tokenizer = tokenizer
        self.size = size
        self.template = template
        self._moved: dict[tuple[str, torch.device], torch.Tensor] = {}
        self._read: dict[str, list[int]] = {}
        for token in (IMG_CONTEXT, IMG_START, IMG_END, *ADDED_TOKENS):
            if len(tokenizer.encode(token, add_special_tokens=False)) != 1:
                raise ValueError(
                    f'the tokenizer {tokenizer.name_or_path!r} does not know {token} as one token; '
                    'use the tokenizer of a Sa2VA model or add the tokens of llava_sam2.portable.prompts.ADDED_TOKENS'
                )
        for token in (*[template.terminator] * template.terminator_is_token, *template.stop_tokens):
            if tokenizer.get_added_vocab().get(token) is None:
                raise ValueError(f'the tokenizer {tokenizer.name_or_path!r} has no special token {token}, by which '
                                 f'template={template.name!r} ends answers')
        if size < len(tokenizer):
            raise ValueError(f'the model has {size} token rows but the tokenizer has {len(tokenizer)} tokens')
        self.image_id = self.id_of(IMG_CONTEXT)
        self.seg_id = self.id_of(SEG)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def on(self, table: str, device: torch.device) -> torch.Tensor:
        """One of the tables on a device; it goes there once."""
        if (table, device) not in self._moved:
            self._moved[table, device] = getattr(self, table).to(device)
        return self._moved[table, device]

    def id_of(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def encode(self, text: str) -> list[int]:
        """Encode one string as a whole, so that tokens at its seams are the ones inference sees."""
        # Special tokens stand alone, so a run of image tokens needs to be read only once.
        runs = [len(run) // len(IMG_CONTEXT) for run in _IMAGE_RUN.findall(text)]
        ids = self._remembered(_IMAGE_RUN.sub(IMG_CONTEXT, text) if runs else text)
        if not runs:
            return list(ids)
        lengths = iter(runs)
        return [index for index in ids for _ in range(next(lengths) if index == self.image_id else 1)]

    def _remembered(self, text: str) -> list[int]:
        """Prompts, answers and sentences come again and again, and a lookup takes a hundredth of the time."""
        ids = self._read.get(text)
        if ids is None:
            if len(self._read) >= REMEMBERED_TEXTS:
                del self._read[next(iter(self._read))]  # the oldest
            if self.tokenizer.is_fast:
                ids = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
            else:
                ids = self.tokenizer.encode(text, add_special_tokens=False)
            self._read[text] = ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @cached_property
    def special(self) -> torch.Tensor:
        """(V,) bool: special, added and reserved tokens, which a caption may not contain."""
        special = torch.zeros(self.size, dtype=torch.bool)
        special[len(self.tokenizer):] = True
        special[list(self.tokenizer.get_added_vocab().values())] = True
        special[list(self.tokenizer.all_special_ids)] = True
        # A name that is no sequence of bytes marks a reserved entry of the byte-pair table.
        special[[index for index, token in enumerate(self._tokens) if not _BYTE_OF.keys() >= set(token)]] = True
        return special

    @cached_property
    def _tokens(self) -> list[str]:
        return self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of every token; empty for special ones."""
        pieces = [b''] * self.size
        for index in (~self.special).nonzero()[:, 0].tolist():
            pieces[index] = bytes(_BYTE_OF[char] for char in self._tokens[index])
        return pieces

    @cached_property
    def not_in_caption(self) -> torch.Tensor:
        """(V,) bool: special tokens, and those in which the terminator (may) begin; they belong to the terminator."""
        if self.template.terminator_is_token:
            return self.special  # no other token holds a part of it
        terminator = self.template.terminator.encode()
        starts = tuple(terminator[:n] for n in range(1, len(terminator) + 1))
        begins = torch.tensor([piece.endswith(starts) or terminator in piece for piece in self.pieces])
        return self.special | begins

    @cached_property
    def ordinary_ids(self) -> torch.Tensor:
        """(M,) ids of the tokens that a caption may contain."""
        return (~self.not_in_caption).nonzero()[:, 0]

    @cached_property
    def cannot_begin(self) -> torch.Tensor:
        """(V,) bool: tokens that a caption may not begin with: those it may not contain, and blank ones."""
        return self.not_in_caption | torch.tensor([not piece.strip() for piece in self.pieces])

    @cached_property
    def cannot_continue(self) -> torch.Tensor:
        """(V,) bool: tokens that may not be generated after the first of a caption: special ones, but a terminator."""
        cannot = self.special.clone()
        if self.template.terminator_is_token:
            cannot[self.id_of(self.template.terminator)] = False
        return cannot

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Single tokens, beside the terminator, that end an answer and are no part of its text."""
        ends = {self.tokenizer.eos_token_id, *map(self.id_of, self.template.stop_tokens)} - {None}
        return frozenset(ends)

    @cached_property
    def never_said(self) -> torch.Tensor:
        """(V,) bool: rows that are no tokens, and the image token, which would ask for features."""
        never = torch.zeros(self.size, dtype=torch.bool)
        never[len(self.tokenizer):] = True
        never[self.image_id] = True
        return never

    @cached_property
    def num_terminator_tokens(self) -> int:
        """Tokens that the terminator takes at most."""
        # As text, its first one may be shared with a final '.'.
        return 1 if self.template.terminator_is_token else len(self.encode(f'.{self.template.terminator}'))

    @cached_property
    def with_leading_space(self) -> torch.Tensor:
        """(V,) ids: the form of each token that follows a space in running text; itself where there is none."""
        by_piece = {piece: index for index, piece in enumerate(self.pieces) if piece}
        return torch.tensor([
            by_piece.get(b' ' + piece, index) if piece else index for index, piece in enumerate(self.pieces)
        ])

    def caption_length(self, ids: Sequence[int]) -> int | None:
        """Number of tokens before the one in which the terminator begins; None when the terminator is not there."""
        if self.template.terminator_is_token:
            terminator_id = self.id_of(self.template.terminator)
            return next((count for count, index in enumerate(ids) if index == terminator_id), None)
        terminator = self.template.terminator.encode()
        text = b''.join(self.pieces[index] for index in ids)
        found = text.find(terminator)
        if found < 0:
            return None
        end = 0
        for count, index in enumerate(ids):
            end += len(self.pieces[index])
            if end > found:
                return count
        raise AssertionError('the terminator lies within the text')

    def may_be_ending(self, ids: Sequence[int]) -> bool:
        """Whether the text ends in a beginning of the terminator, so that the next tokens may complete it."""
        if self.template.terminator_is_token:
            return False
        terminator = self.template.terminator.encode()
        tail = b''.join(self.pieces[index] for index in ids[-len(terminator):])
        return tail.endswith(tuple(terminator[:n] for n in range(1, len(terminator))))
