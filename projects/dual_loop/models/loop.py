"""What every loop is: an object that gives a loss of a batch, and says what the engine must know about it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dual_loop.loop_names import loader_key, loop_title
from llava_sam2.portable.sequences import Row
from llava_sam2.text_rows import TextRows

if TYPE_CHECKING:
    from .dual_loop_model import DualLoopModel

#: Parameter groups of the caption path and of the mask path, as ``engine.flat.PARAMETER_GROUPS`` names them.
CAPTION_PATH = ('lora', 'projector', 'language_model', 'vision_model')
MASK_PATH = ('text_hidden_fcs', 'decoder', 'image_encoder')


@dataclass(frozen=True)
class Passage:
    """One sequence of a sample, for readers.

    Attributes:
        title: the pass that reads it.
        row: the sequence.
        note: what is not as in training; may be empty.
        slot: positions of a caption that is not known yet, shown as ``slot_text``.
        learned: whether the supervised tokens have a weight.
    """

    title: str
    row: Row
    note: str = ''
    slot: range = range(0)
    slot_text: str = ''
    learned: bool = True


class Loop:
    """A task that training repeats: it reads its own data, gives a loss and reaches some of the trained parameters.

    A loop of one's own subclasses this, is registered in mmengine's ``MODELS`` and named in ``model.loops``
    (docs/extending.md).

    Attributes:
        name: key of its figures in the log, of its data loader and of ``forward``'s mode.
        key: part of the key of its dropout.
        losses: the figures that the progress line shows.
        reaches: parameter groups that its gradient reaches; None for all.
        first_step: until this step the loop rests: its batches are read, but it has no gradient and no figures.
        joins: name of an earlier loop whose gradient this loop's is added to before surgery; None for one of its own.
        needs_captions: whether every row of its data must have a caption.
        uses_teacher: whether it asks the teacher, so that one must be kept.
    """

    name: str = 'loop'
    losses: tuple[str, ...] = ('loss', )
    reaches: tuple[str, ...] | None = None
    joins: str | None = None
    first_step = 0
    needs_captions = False
    uses_teacher = True

    @property
    def key(self) -> int | str:
        return self.name

    @property
    def title(self) -> str:
        """Its name in words."""
        return loop_title(self.name)

    def attach(self, model: 'DualLoopModel') -> None:
        """Called once when the model is built: for what a loop keeps of the weights that training starts with."""

    def prepare(self, model: 'DualLoopModel', batches: Sequence[Mapping[str, Any]], step: int,
                poll: Callable[[], None] | None = None) -> Sequence[Any]:
        """What is better done for all micro-batches of a step at once, without a graph.

        Args:
            model, poll: as in :meth:`forward`.
            batches: of this step.
            step: keys the random draws.

        Returns:
            Of each batch what :meth:`forward` gets as ``prepared``; nothing at all (the default) if it gets none.
        """
        return ()

    def forward(self, model: 'DualLoopModel', data: Mapping[str, Any], step: int, preview: bool = False,
                poll: Callable[[], None] | None = None) -> dict[str, Any]:
        """The loss of a batch.

        Args:
            model: with the student, the teacher and what else is trained.
            data: a collated batch (docs/data.md).
            step: keys the random draws.
            preview: keep what the pictures show.
            poll: called now and then, for example before each token of the teacher; may raise to abandon the step.

        Returns:
            ``loss`` with its graph, a mean over the rows of the global batch; its parts and the figures of the log as
            numbers or tensors (), ``seconds_PHASE`` among them for what is a phase of its own; ``preview``, with
            what pictures show, if there is any: ``captions`` and ``predicted`` (R, G, G) bool, and ``written``, row ->
            tokens of the texts on the way to its caption, of which MaskLoop has ``teacher``, ``corrupted``,
            ``student``.
        """
        raise NotImplementedError

    def passages(self, rows: TextRows, data: Mapping[str, Any], row: int, step: int) -> Iterator[Passage]:
        """The sequences with which one row of a batch is trained, without a network."""
        yield from ()

    def refuse_missing_captions(self, data: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if a row has no caption."""
        if None in data['captions']:
            sample = data['sample_ids'][data['captions'].index(None)]
            raise ValueError(f'{sample} has no caption: data without captions belongs to loop 1 (train_dataloader), '
                             f'not to {loader_key(self.name)}')


def detached(parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parts of a loss without their graphs."""
    return {name: part.detach() for name, part in parts.items()}


def as_numbers(figures: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """Figures as numbers; those that are tensors come from the device together, which the host waits for once."""
    tensors = {name: value for name, value in figures.items() if isinstance(value, torch.Tensor)}
    values = torch.stack([value.float() for value in tensors.values()]).tolist() if tensors else []
    return {name: float(value) for name, value in (dict(figures) | dict(zip(tensors, values))).items()}


def check_caption_len(max_caption_len: int) -> int:
    """Tokens of a caption at most, as given; raises ``ValueError`` if a caption could have none."""
    if not isinstance(max_caption_len, int) or max_caption_len < 1:
        raise ValueError(f'model.max_caption_len={max_caption_len!r} is no number of tokens: use a whole number from 1 '
                         'on')
    return max_caption_len
