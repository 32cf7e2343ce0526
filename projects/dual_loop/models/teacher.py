"""Teachers: the student's weights, with other values for what is trained, describe masked regions and find objects."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmengine.registry import MODELS
from torch import nn

from llava_sam2.model import Images, VideoLLaVASAMModel
from llava_sam2.portable.generation import Decoded, greedy_decode
from llava_sam2.portable.network import binary_masks
from llava_sam2.portable.sequences import Row
from llava_sam2.portable.static_decoding import StaticDecoder, obstacle

DECODINGS = ('auto', 'static', 'plain')
#: All that reads what the encoders see; these run once, with the student's weights.
AFTER_ENCODERS = ('network.mlp1.', 'network.language_model.', 'network.text_hidden_fcs.',
                   'network.grounding_encoder.mask_decoder.')


@MODELS.register_module()
class Teacher:
    """Describes masked regions, and finds objects, with averaged weights: the EMA teacher.

    Only what is trained behind the two encoders (LoRA, ``mlp1``, ``text_hidden_fcs`` and the mask decoder in the
    standard recipe) has values of its own; the rest is the student's. The values are a working copy in the model's
    dtype, written by the EMA hook, and no buffers: DeepSpeed would cast buffers of the wrapped module.

    Args:
        student: the model whose weights are shared.
        decoding: ``static`` (merged weights, fixed caches, a captured graph on a GPU, see
            :class:`~llava_sam2.portable.static_decoding.StaticDecoder`; takes a second copy of the decoder layers),
            ``plain``, or ``auto``: static wherever the student allows it.
        compile: compile the static step of a layer; None for yes on a GPU.

    Attributes:
        needs_averages: whether it stands still unless a hook calls :meth:`set_values` after every step. Training is
            refused without one.

    Raises:
        ValueError: ``static`` where it cannot be.
    """

    needs_averages = True

    def __init__(self, student: VideoLLaVASAMModel, decoding: str = 'auto', compile: bool | None = None):
        if decoding not in DECODINGS:
            raise ValueError(f'model.teacher.decoding={decoding!r} is unknown, use one of {", ".join(DECODINGS)}')
        if decoding == 'static' and (reason := obstacle(student.network)):
            raise ValueError(f"model.teacher.decoding='static' cannot be: {reason}; use 'auto' or 'plain'")
        self.student = student
        self.static = decoding == 'static' or decoding == 'auto' and obstacle(student.network) is None
        self.compile = compile
        self._decoder: StaticDecoder | None = None
        self._merged = False
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in student.trainables().items() if name.startswith(AFTER_ENCODERS)
        }
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def set_values(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Write the working copy from averages of at least all that is trained behind the encoders."""
        for name, parameter in self.parameters.items():
            value = self.values[name]
            if (value.device, value.dtype) != (parameter.device, parameter.dtype):  # the model has moved since
                value = self.values[name] = torch.empty_like(parameter)
            value.copy_(averages[name])
        self._merged = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the student's modules run with the teacher's values, without dropout."""
        training = self.student.training
        with swapped(*self._present()):
            self.student.eval()
            try:
                yield
            finally:
                self.student.train(training)

    def _present(self) -> tuple[dict[str, nn.Parameter], dict[str, torch.Tensor]]:
        """Parameters that have values of their own, and these in the type and place that the parameters have now."""
        for name, parameter in self.parameters.items():
            self.values[name] = self.values[name].to(parameter)
        return self.parameters, self.values

    @torch.no_grad()
    def describe(
        self, images: Images, image_of_row: Sequence[int], regions: Sequence[torch.Tensor], max_caption_len: int,
        poll: Callable[[], None] | None = None, short: Sequence[bool] | None = None,
    ) -> list[Decoded]:
        """Greedy captions of regions.

        Args:
            images: encoded images.
            image_of_row: index of each row's image.
            regions: (grid, grid) bool per row.
            max_caption_len: tokens at most.
            poll: called before each token; may raise to abandon the decoding.
            short: of each row, whether it is asked for a short caption; all are asked for a description by default.

        Returns:
            Per row, at least one token: a caption may not begin with the terminator.
        """
        student, vocabulary = self.student, self.student.vocabulary
        rows = [student.text_rows.description(image, region, [], brief)
                for image, region, brief in zip(image_of_row, regions, short or [False] * len(regions))]
        device = student.network.device
        banned = dict(forbidden=vocabulary.on('cannot_continue', device),
                      forbidden_first=vocabulary.on('cannot_begin', device))
        if self.static:
            with swapped(*self._present()):  # nothing that is read so has dropout
                features = student.project(images)
                return self._static_decoder().decode(student.pad(rows), features, max_caption_len, poll=poll, **banned)
        with self.active(), student.precision():
            return greedy_decode(student.network, student.pad(rows, side='left'), student.project(images), vocabulary,
                                 max_caption_len, poll=poll, **banned)

    @torch.no_grad()
    def segment(self, rows: Sequence[Row], images: Images, poll: Callable[[], None] | None = None) -> torch.Tensor:
        """Mask logits (R, h, w) of segmentation rows whose answers are given, in one pass.

        Args:
            rows: with text in the slot.
            images: encoded images.
            poll: called before the pass; may raise to abandon it.
        """
        if poll is not None:
            poll()
        with self.active():
            _, hidden_states = self.student.read_rows(rows, images)
            return self.student.segment(rows, hidden_states, images)

    def ious(self, rows: Sequence[Row], images: Images, masks: torch.Tensor,
             poll: Callable[[], None] | None = None) -> torch.Tensor:
        """IoU (R,), float32, of what :meth:`segment` finds with the true masks (R, G, G), bool; 0 where both are
        empty."""
        logits = self.segment(rows, images, poll)
        return mask_iou(binary_masks(logits[:, None], masks.shape[-2:])[:, 0], masks)

    def _static_decoder(self) -> StaticDecoder:
        """With the present values."""
        student = self.student
        if self._decoder is None or self._decoder.stale:
            compiled = student.network.device.type == 'cuda' if self.compile is None else self.compile
            self._decoder = None  # before another one takes its memory
            self._decoder, self._merged = StaticDecoder(student.network, student.vocabulary, compiled), False
        if not self._merged:
            parameters, values = self._present()
            self._decoder.merge({parameter: values[name] for name, parameter in parameters.items()})
            self._merged = True
        return self._decoder


@MODELS.register_module()
class FrozenTeacher(Teacher):
    """Speaks with the weights that the model is built with, to the end of training."""

    needs_averages = False

    def set_values(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Nothing: averages may be kept beside it, for export."""


@MODELS.register_module()
class LiveTeacher(Teacher):
    """Speaks with the student's current weights, without dropout."""

    needs_averages = False

    def __init__(self, student: VideoLLaVASAMModel, decoding: str = 'auto', compile: bool | None = None):
        super().__init__(student, decoding, compile)
        self.parameters, self.values = {}, {}

    def _static_decoder(self) -> StaticDecoder:
        self._merged = False  # an optimizer step may have come between
        return super()._static_decoder()


#: What a config may name in a word.
TEACHERS = dict(ema=Teacher, frozen=FrozenTeacher, live=LiveTeacher)


def build_teacher(teacher: str | dict, student: VideoLLaVASAMModel, key: str = 'model.teacher') -> Teacher:
    """A teacher by its word, or by a registered class and its further arguments; ``key`` says which in errors.

    Raises:
        ValueError: the word is unknown.
    """
    if not isinstance(teacher, str):
        return MODELS.build(dict(teacher, student=student))
    if teacher not in TEACHERS:
        raise ValueError(f'{key}={teacher!r} is unknown: use {", ".join(map(repr, TEACHERS))}, or '
                         'dict(type=..., ...) of a class of your own')
    return TEACHERS[teacher](student)


def mask_iou(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU (R,), float32, of masks (R, H, W), bool; 0 where both are empty."""
    intersection, union = (each.flatten(1).sum(dim=1) for each in (predicted & target, predicted | target))
    return intersection / union.clamp(min=1)


@contextmanager
def swapped(params: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]):
    """Let ``params`` hold ``values`` inside the ``with`` block by exchanging ``.data`` pointers; nothing is copied.

    The old pointers come back at the end, also after an exception. No autograd graph may cross the border: use it for
    passes without gradients.

    Args:
        params: name -> parameter.
        values: name -> tensor of the same shape, type and device, for exactly the same names.
    """
    if params.keys() != values.keys():
        lonely = min(params.keys() ^ values.keys())
        raise KeyError(f"swapped() needs the same names on both sides; '{lonely}' has no partner")
    for name, param in params.items():
        value = values[name]
        if (value.shape, value.dtype, value.device) != (param.shape, param.dtype, param.device):
            raise ValueError(f"cannot swap '{name}': the parameter is {param.dtype} {tuple(param.shape)} on "
                             f'{param.device}, the value {value.dtype} {tuple(value.shape)} on {value.device}')
    own = {name: param.data for name, param in params.items()}
    try:
        for name, param in params.items():
            param.data = values[name]
        yield
    finally:
        for name, param in params.items():
            param.data = own[name]
