"""The sequences with which a sample is trained, token by token: what is read, and what carries a loss."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dual_loop.models.dual_loop_model import build_loops
from dual_loop.models.loop import Passage
from dual_loop.models.supervised_loop import supervised_passages
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.portable import prompts
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.sequences import IGNORE, Row
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.text_rows import TextRows
from llava_sam2.tokenizer import build_tokenizer
from llava_sam2.weights.sources import config_of_source, resolved

_LONGEST_CHARACTER = 4  # bytes of UTF-8


@dataclass(frozen=True)
class Chip:
    """Neighbouring tokens that are shown as one: mostly a single one.

    Attributes:
        text: the decoded text, or a name where the tokens stand for something else.
        ids: of the tokens; placeholders for what exists as embeddings only.
        supervised: the tokens carry a loss.
        kind: ``text``, ``tag`` (a special token), ``seg``, ``image``, ``region``, or ``slot`` (a caption that the model
            writes during training).
    """

    text: str
    ids: tuple[int, ...]
    supervised: bool
    kind: str


@dataclass(frozen=True)
class TokenView:
    """One sequence of a sample.

    Attributes:
        title: the pass that reads it.
        note: what is not as in training; may be empty.
        row: the sequence itself.
        chips: the same for readers, all tokens in order.
    """

    title: str
    note: str
    row: Row
    chips: list[Chip] = field(repr=False)

    @property
    def length(self) -> str:
        """How long the sequence is, in words."""
        known = sum(len(chip.ids) for chip in self.chips if chip.kind != 'slot')
        supervised = sum(len(chip.ids) for chip in self.chips if chip.supervised)
        slot = ' and a caption' * (known < len(self.row.input_ids))
        return f'{known} tokens{slot}, {supervised} supervised'


class SequenceBuilder:
    """Builds the sequences of samples as the models do, without a network.

    Args:
        model: ``model`` of a config: a :class:`DualLoopModel` or a :class:`VideoLLaVASAMModel`.
        step: keys the drawn question and answer.

    Raises:
        FileNotFoundError: no tokenizer, or no sizes where the config does not state them.
        ValueError: the model has no tokenizer.
    """

    def __init__(self, model: Mapping[str, Any], step: int = 0):
        base = _with_defaults(model.get('base', model), VideoLLaVASAMModel)
        if base['tokenizer'] is inspect.Parameter.empty:
            raise ValueError('the config has no model.base.tokenizer (or model.tokenizer); browse one that trains')
        tokenizer = build_tokenizer(base['tokenizer'])
        self.config = _network_config(base['network'] or {}, base['pretrained'])
        self.vocabulary = Vocabulary(tokenizer, len(tokenizer), self.config.chat_template)
        self.rows = TextRows(self.vocabulary, self.config, base['seed'], base['single_template_steps'])
        #: Title of each loop -> the loop; of a plain base model none.
        self.loops = {loop.title: loop for loop in build_loops(model).values()} if 'base' in model else {}
        self.step = step

    def views(self, loader: str, data: Mapping[str, Any], row: int) -> list[TokenView]:
        """All sequences of one row.

        Args:
            loader: title of a loop, ``training`` (plain supervised training) or ``held out``.
            data: a collated batch.
            row: of the batch.

        Raises:
            ValueError: the sample does not fit the model, or lacks the caption that this loader's samples need.
        """
        self._check_sizes(data, row)
        loop = self.loops.get(loader)
        if data['captions'][row] is None and (loop is None or loop.needs_captions):
            raise ValueError(f'{data["sample_ids"][row]} of {data["sources"][row]} has no caption, which {loader} '
                             'cannot do without: give this loader data sets with captions')
        if loop is not None:
            passages = loop.passages(self.rows, data, row, self.step)
        elif loader == 'training':
            passages = supervised_passages(self.rows, data, row, self.step)
        else:
            sequence = self.rows.monitored(int(data['image2'][row]), data['captions'][row])
            passages = iter([Passage('Find the mask', sequence, 'The answer is given; nothing is learned here.',
                                     learned=False)])
        return [self._view(passage) for passage in passages]

    def _view(self, passage: Passage) -> TokenView:
        row = passage.row
        labels = row.labels if passage.learned else [IGNORE] * len(row.labels)
        chips = token_chips(self.vocabulary, row.input_ids, labels, passage.slot, passage.slot_text)
        return TokenView(passage.title, passage.note, row, list(chips))

    def _check_sizes(self, data: Mapping, row: int) -> None:
        config = self.config
        for key, tensor, wanted in (('image_size', data['pixel_values'], config.image_size),
                                    ('grounding_size', data['g_pixel_values'], config.grounding_size),
                                    ('region_grid', data['prompt_masks'], config.region_grid)):
            if tensor.shape[-1] != wanted:
                raise ValueError(f'{data["sources"][row]} has {key}={tensor.shape[-1]}, but the model reads {wanted}: '
                                 f'correct {key} of this data set')


def _with_defaults(settings: Mapping[str, Any], model: type) -> dict[str, Any]:
    parameters = inspect.signature(model).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters} | dict(settings)


def _network_config(network: Mapping[str, Any], pretrained: Any) -> Sa2VAConfig:
    # The folder of weights must agree with what is stated in full, so it need not be there yet.
    if pretrained is None or {'vision_config', 'grounding_config'} <= set(network):
        return Sa2VAConfig(**network)
    return config_of_source(resolved(pretrained), network)


def token_chips(vocabulary: Vocabulary, ids: Sequence[int], labels: Sequence[int], slot: range = range(0),
                slot_text: str = '') -> Iterator[Chip]:
    """Tokens for readers: runs of image tokens collapsed, tokens that share a character together.

    Args:
        vocabulary: of the tokens.
        ids: of the sequence.
        labels: same length, ``IGNORE`` where nothing is supervised.
        slot: positions of a caption that is not known, shown as ``slot_text``.
    """
    region_start = vocabulary.id_of(prompts.REGION_START)
    start = 0
    while start < len(ids):
        index = ids[start]
        stop = start + 1
        if start in slot:
            stop, text, kind = slot.stop, slot_text, 'slot'
        elif index == vocabulary.image_id:
            while stop < len(ids) and ids[stop] == index:
                stop += 1
            kind = 'region' if start and ids[start - 1] == region_start else 'image'
            text = f'{prompts.IMG_CONTEXT} x {stop - start}'
        elif vocabulary.special[index]:
            text, kind = vocabulary.decode([index]), 'seg' if index == vocabulary.seg_id else 'tag'
        else:
            count, text = _characters([vocabulary.pieces[each] for each in ids[start:start + _LONGEST_CHARACTER]])
            stop, kind = start + count, 'text'
        yield Chip(text, tuple(ids[start:stop]), labels[start] != IGNORE, kind)
        start = stop


def _characters(pieces: Sequence[bytes]) -> tuple[int, str]:
    """How many of the pieces it takes to end with a whole character, and the text of these."""
    data = b''
    for count, piece in enumerate(pieces, start=1):
        if not piece:  # a special token cuts the character off
            break
        data += piece
        try:
            return count, data.decode()
        except UnicodeDecodeError:
            continue
    return 1, pieces[0].decode(errors='replace')
