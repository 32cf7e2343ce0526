"""Teachers: the student's weights, with other values for the trained caption path, describe masked regions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmengine.registry import MODELS
from torch import nn

from llava_sam2.model import Images, VideoLLaVASAMModel
from llava_sam2.portable.generation import Decoded, greedy_decode

_CAPTION_PATH = ('network.mlp1.', 'network.language_model.')


@MODELS.register_module()
class Teacher:
    """Describes masked regions with averaged weights: the EMA teacher.

    Only the trained part of the caption path (LoRA and ``mlp1`` in the standard recipe) has values of its own; the
    rest is the student's. The values are a working copy in the model's dtype, written by the EMA hook, and no buffers:
    DeepSpeed would cast buffers of the wrapped module.

    Args:
        student: the model whose weights are shared.

    Attributes:
        needs_averages: whether it stands still unless a hook calls :meth:`set_values` after every step. Training is
            refused without one.
    """

    needs_averages = True

    def __init__(self, student: VideoLLaVASAMModel):
        self.student = student
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in student.trainables().items() if name.startswith(_CAPTION_PATH)
        }
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def set_values(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Write the working copy from averages that hold at least the caption path."""
        for name, parameter in self.parameters.items():
            # The model may have moved to another device since the copy was made.
            self.values[name] = averages[name].to(device=parameter.device, dtype=parameter.dtype, copy=True)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the student's modules run with the teacher's values, without dropout."""
        training = self.student.training
        for name, parameter in self.parameters.items():  # moved or cast since the copy was made
            self.values[name] = self.values[name].to(parameter)
        with swapped(self.parameters, self.values):
            self.student.eval()
            try:
                yield
            finally:
                self.student.train(training)

    @torch.no_grad()
    def describe(
        self, images: Images, image_of_row: Sequence[int], regions: Sequence[torch.Tensor], max_caption_len: int,
        poll: Callable[[], None] | None = None,
    ) -> list[Decoded]:
        """Greedy captions of regions.

        Args:
            images: encoded images.
            image_of_row: index of each row's image.
            regions: (grid, grid) bool per row.
            max_caption_len: tokens at most.
            poll: called before each token; may raise to abandon the decoding.

        Returns:
            Per row, at least one token: a caption may not begin with the terminator.
        """
        student, vocabulary = self.student, self.student.vocabulary
        rows = [student.text_rows.description(image, region, []) for image, region in zip(image_of_row, regions)]
        with self.active(), student.precision():
            return greedy_decode(
                student.network,
                student.pad(rows, side='left'),
                student.project(images),
                vocabulary,
                max_caption_len,
                forbidden=vocabulary.cannot_continue,
                forbidden_first=vocabulary.cannot_begin,
                poll=poll,
            )


@MODELS.register_module()
class FrozenTeacher(Teacher):
    """Describes with the weights that the model is built with, to the end of training."""

    needs_averages = False

    def set_values(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Nothing: averages may be kept beside it, for export."""


@MODELS.register_module()
class LiveTeacher(Teacher):
    """Describes with the student's current weights, without dropout."""

    needs_averages = False

    def __init__(self, student: VideoLLaVASAMModel):
        self.student = student
        self.parameters, self.values = {}, {}


#: What a config may name in a word.
TEACHERS = dict(ema=Teacher, frozen=FrozenTeacher, live=LiveTeacher)


def build_teacher(teacher: str | dict, student: VideoLLaVASAMModel) -> Teacher:
    """A teacher by its word, or by a registered class and its further arguments.

    Raises:
        ValueError: the word is unknown.
    """
    if not isinstance(teacher, str):
        return MODELS.build(dict(teacher, student=student))
    if teacher not in TEACHERS:
        raise ValueError(f'model.teacher={teacher!r} is unknown: use {", ".join(map(repr, TEACHERS))}, or '
                         'dict(type=..., ...) of a class of your own')
    return TEACHERS[teacher](student)


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
