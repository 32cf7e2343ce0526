"""The base model with its teacher and the loops that train it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from llava_sam2.batches import BatchPreprocessor
from llava_sam2.model import VideoLLaVASAMModel

from .caption_loop import CaptionLoop
from .loop import Loop
from .mask_loop import MaskLoop
from .teacher import build_teacher

_OTHER_MODES = ('loss', 'predict', 'surrogate')
#: Settings of loop 1 alone.
_OF_FIRST = ('bridge', 'topk', 'tau', 'mask_ratio', 'denoise_weight', 'slot', 'bridge_gradient', 'bridge_max_norm',
             'min_cycle_iou', 'distill_weight', 'reward_weight', 'listener', 'first_step')


class GivenGradient(torch.autograd.Function):
    """A zero whose gradients are given: what sum(p * g) is to DDP and DeepSpeed, without thousands of kernels."""

    @staticmethod
    def forward(ctx, gradients, *parameters):
        ctx.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx, grad):
        return None, *torch._foreach_mul(ctx.gradients, grad)


@MODELS.register_module()
class DualLoopModel(BaseModel):
    """Loops over one base model: by default loop 1 (mask to caption to mask) and loop 2 (caption to mask' to caption).

    Args:
        base: config or instance of :class:`VideoLLaVASAMModel`.
        loops: settings or instances of :class:`Loop`, in the order in which surgery takes their gradients. None for
            :class:`MaskLoop` and :class:`CaptionLoop` with the settings below.
        teacher: ``ema`` speaks with the averages that TeacherEMAHook keeps, ``frozen`` with the weights that the model
            is built with, ``live`` with the student's own; or a registered class with its further arguments.
        bridge, topk, tau, mask_ratio, denoise_weight, slot, bridge_gradient, bridge_max_norm, min_cycle_iou,
        distill_weight, reward_weight, listener, first_step: of loop 1, see :class:`MaskLoop`, where the defaults are.
        mask_weight: of loop 2, see :class:`CaptionLoop`.
        max_caption_len, answer_weight, short_captions: of both.

    Raises:
        ValueError: settings of the two loops beside ``loops``, a name that two loops have, or a loop that joins none.
    """

    def __init__(
        self,
        base: dict | VideoLLaVASAMModel,
        loops: Sequence[dict | Loop] | None = None,
        teacher: str | dict | None = 'ema',
        bridge: str | dict | None = None,
        topk: int | None = None,
        tau: float | None = None,
        max_caption_len: int | None = None,
        mask_ratio: float | None = None,
        answer_weight: float | None = None,
        short_captions: float | None = None,
        denoise_weight: float | None = None,
        slot: str | None = None,
        bridge_gradient: float | None = None,
        bridge_max_norm: float | None = None,
        min_cycle_iou: float | None = None,
        distill_weight: float | None = None,
        reward_weight: float | None = None,
        listener: str | dict | None = None,
        first_step: int | None = None,
        mask_weight: float | None = None,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor or dict(type=BatchPreprocessor))
        #: Name -> loop, in the order of the config.
        self.loops = build_loops(dict(
            loops=loops, bridge=bridge, topk=topk, tau=tau, max_caption_len=max_caption_len, mask_ratio=mask_ratio,
            answer_weight=answer_weight, short_captions=short_captions, denoise_weight=denoise_weight,
            mask_weight=mask_weight, slot=slot, bridge_gradient=bridge_gradient, bridge_max_norm=bridge_max_norm,
            min_cycle_iou=min_cycle_iou, distill_weight=distill_weight, reward_weight=reward_weight, listener=listener,
            first_step=first_step))
        self.base = base if isinstance(base, VideoLLaVASAMModel) else MODELS.build(base)
        self.teacher = build_teacher(teacher or 'ema', self.base)
        for loop in self.loops.values():
            loop.attach(self)

    @property
    def max_caption_len(self) -> int | None:
        """Of the first loop that has one."""
        return next((loop.max_caption_len for loop in self.loops.values() if hasattr(loop, 'max_caption_len')), None)

    @staticmethod
    def surrogate(parameters: Iterable[torch.Tensor], gradients: Iterable[torch.Tensor]) -> torch.Tensor:
        """A scalar whose gradient with respect to the parameters is the given one."""
        pairs = list(zip(parameters, gradients, strict=True))
        return GivenGradient.apply([gradient.to(p.dtype) for p, gradient in pairs], *(p for p, _ in pairs))

    def init_weights(self) -> None:
        """Nothing to do; see :meth:`VideoLLaVASAMModel.init_weights`."""

    def trainables(self) -> dict[str, torch.nn.Parameter]:
        return {f'base.{name}': parameter for name, parameter in self.base.trainables().items()}

    def state_dict(self, *args, prefix: str = '', **kwargs) -> dict[str, torch.Tensor]:
        """Trained tensors only, unless the frozen ones are random and exist nowhere else."""
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        trained = {prefix + name for name in self.trainables()}
        for name in list(state) if not self.base.random_weights else ():
            if name.startswith(prefix) and name not in trained:
                del state[name]
        return state

    def forward(self, data: Mapping | None, data_samples: Mapping | Sequence | None = None, mode: str = 'loss'):
        """One entry for every pass of training and validation.

        Args:
            data: a collated batch, None for ``surrogate``.
            data_samples: for the loops a dict of their further arguments; for ``surrogate`` the trainables and their
                combined gradients.
            mode: name of a loop, ``loss`` (plain supervised training), ``predict`` (a mask for each row, by the
                student), or ``surrogate`` (a scalar whose gradient is the given one).
        """
        if mode == 'surrogate':
            return self.surrogate(*data_samples)
        if mode in ('loss', 'predict'):
            return self.base(data, data_samples, mode=mode)
        if mode in self.loops:
            return self.loops[mode].forward(self, data, **dict(data_samples))
        raise ValueError(f'unknown mode {mode!r}, there are {", ".join((*self.loops, *_OTHER_MODES))}')


def build_loops(settings: Mapping[str, Any]) -> dict[str, Loop]:
    """The loops of a model from its settings, by name, without the model.

    Raises:
        ValueError: see :class:`DualLoopModel`.
    """
    of_both = {key: settings.get(key) for key in ('max_caption_len', 'answer_weight', 'short_captions')}
    of_first = {key: settings.get(key) for key in _OF_FIRST}
    of_second = dict(mask_weight=settings.get('mask_weight'))
    given = [key for key, value in (of_both | of_first | of_second).items() if value is not None]
    if settings.get('loops') is None:
        built: list[Loop] = [MaskLoop(**_given(of_both | of_first)), CaptionLoop(**_given(of_both | of_second))]
    elif given:
        raise ValueError(f'model.{given[0]} stands beside model.loops: set it in the loop that it belongs to')
    else:
        built = [loop if isinstance(loop, Loop) else MODELS.build(loop) for loop in settings['loops']]
    loops: dict[str, Loop] = {}
    for loop in built:
        if loop.name in loops or loop.name in _OTHER_MODES:
            raise ValueError(f'model.loops has two loops, or a mode of the model, with the name {loop.name!r}: give '
                             'one of them another name=')
        if loop.joins is not None and (loop.joins not in loops or loops[loop.joins].joins is not None):
            raise ValueError(f'model.loops: {loop.name!r} joins {loop.joins!r}, which is no loop before it with a '
                             'gradient of its own: name one, or set joins=None')
        loops[loop.name] = loop
    if not loops:
        raise ValueError('model.loops is empty: there is nothing to train')
    return loops


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
