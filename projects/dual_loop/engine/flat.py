"""One flat fp32 buffer for the gradients of all trainables, and the plan of what lies where in it.

Surgery needs the gradients of the loops side by side, averaged over ranks. A flat buffer makes that one all-reduce, a
few long dot products and two long multiplications, whatever the number of tensors.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor

from dual_loop.loop_names import loop_title
from dual_loop.models.loop import Loop

#: Name of a group of parameters -> what its names look like. A tensor belongs to the first group that fits, so LoRA
#: stands before its language model. Which groups a loop reaches is the loop's to say (``Loop.reaches``).
PARAMETER_GROUPS = dict(
    lora=dict(pattern=r'\.lora_'),
    projector=dict(pattern=r'(^|\.)mlp1\.'),
    language_model=dict(pattern=r'(^|\.)language_model\.'),
    vision_model=dict(pattern=r'(^|\.)vision_model\.'),
    text_hidden_fcs=dict(pattern=r'(^|\.)text_hidden_fcs\.'),
    decoder=dict(pattern=r'(^|\.)mask_decoder\.'),
    image_encoder=dict(pattern=r'(^|\.)grounding_encoder\.vision_encoder\.'),
)


def groups_of_loops(loops: Iterable[Loop], groups: Mapping[str, Mapping] = PARAMETER_GROUPS) -> dict[str, dict]:
    """The groups with the names of the ``loops`` that reach each, where they do not state that themselves.

    Raises:
        ValueError: a group that states other loops than there are, or a loop that reaches a group that there is not.
    """
    loops = list(loops)
    for loop in loops:
        # A config's own groups need not have all that the shipped loops know.
        if unknown := sorted(set(loop.reaches or ()) - groups.keys() - PARAMETER_GROUPS.keys()):
            raise ValueError(f"loop '{loop.name}' reaches the parameter group '{unknown[0]}', which there is not "
                             f'({", ".join(groups)}): correct its reaches, or add the group to train_cfg.groups')
    resolved = {}
    for name, group in groups.items():
        reaching = group.get('loops')
        if reaching is None:
            reaching = [loop.name for loop in loops if loop.reaches is None or name in loop.reaches]
        else:  # by name, or by number as in loop1
            reaching = [f'loop{each}' if isinstance(each, int) else each for each in reaching]
        if unknown := sorted(set(reaching) - {loop.name for loop in loops}):
            raise ValueError(f"parameter group '{name}' has loops={group['loops']!r}, but there is no loop "
                             f"'{unknown[0]}' ({', '.join(loop.name for loop in loops)})")
        resolved[name] = dict(pattern=group['pattern'], loops=tuple(reaching))
    return resolved


@dataclass(frozen=True)
class FlatLayout:
    """Where each trainable tensor lies in a flat buffer, to which group it belongs and which loops reach it.

    Attributes:
        names: of the N trainable tensors, in the order of the model.
        shapes: of the same tensors.
        groups: the group of each tensor, N strings.
        loops: group -> names of the loops that reach it.
        gradients: names of the loops whose sum is the k-th gradient that surgery sees, K tuples.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    groups: tuple[str, ...]
    loops: Mapping[str, tuple[str, ...]] = field(hash=False)
    gradients: tuple[tuple[str, ...], ...]

    @classmethod
    def from_params(cls, named_params: Iterable[tuple[str, Tensor]], groups: Mapping[str, Mapping],
                    gradients: Sequence[Sequence[str]]) -> 'FlatLayout':
        """Lay out the trainables among ``named_params`` (those with ``requires_grad``) in the order given.

        Args:
            named_params: as from ``model.named_parameters()``.
            groups: group name -> ``dict(pattern=regular expression, loops=names)``, see :func:`groups_of_loops`. A
                tensor belongs to the first group whose pattern is found in its name.
            gradients: which loops are summed to one gradient.

        Raises:
            ValueError: a trainable fits no group, or one that no loop reaches.
        """
        trainables = [(name, param) for name, param in named_params if param.requires_grad]
        if not trainables:
            raise ValueError('no parameter has requires_grad: there is nothing to train')

        def group_of(name: str) -> str:
            for group, spec in groups.items():
                if re.search(spec['pattern'], name):
                    if not spec['loops']:
                        raise ValueError(f"no loop reaches '{name}' of parameter group '{group}': freeze it, or name "
                                         'the group in reaches of a loop')
                    return group
            raise ValueError(f"trainable '{name}' fits no parameter group ({', '.join(groups)}): "
                             'freeze it or add a group with a pattern that is found in its name')

        return cls(names=tuple(name for name, _ in trainables),
                   shapes=tuple(param.shape for _, param in trainables),
                   groups=tuple(group_of(name) for name, _ in trainables),
                   loops={group: tuple(spec['loops']) for group, spec in groups.items()},
                   gradients=tuple(tuple(each) for each in gradients))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each tensor in the buffer, and the buffer's length as the last of the N + 1 values."""
        return tuple(accumulate((shape.numel() for shape in self.shapes), initial=0))

    @property
    def numel(self) -> int:
        """Length of the buffer."""
        return self.offsets[-1]

    @cached_property
    def runs(self) -> tuple[tuple[str, slice], ...]:
        """The buffer cut into (group, slice): neighbours of the same group are one slice."""
        runs: list[tuple[str, slice]] = []
        for group, start, stop in zip(self.groups, self.offsets, self.offsets[1:]):
            if runs and runs[-1][0] == group:
                start = runs.pop()[1].start
            runs.append((group, slice(start, stop)))
        return tuple(runs)

    @cached_property
    def reached_by(self) -> dict[str, tuple[int, ...]]:
        """Group -> the gradients, counted from 0, in which its tensors may differ from zero."""
        return {group: tuple(number for number, summed in enumerate(self.gradients) if set(summed) & set(loops))
                for group, loops in self.loops.items()}

    def first_reached(self, loop: str) -> int:
        """Where the first element that a loop reaches lies in the buffer."""
        return next(offset for group, offset in zip(self.groups, self.offsets) if loop in self.loops[group])

    def new_buffer(self, device: torch.device | str = 'cpu') -> Tensor:
        """A (numel,) fp32 buffer of zeros."""
        return torch.zeros(self.numel, dtype=torch.float32, device=device)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Cut a (numel,) buffer into N views with the shapes of the tensors; nothing is copied."""
        self.check(flat)
        return [part.view(shape) for part, shape in zip(flat.split([s.numel() for s in self.shapes]), self.shapes)]

    def check(self, flat: Tensor) -> None:
        """Raise ValueError unless ``flat`` is a contiguous fp32 buffer of this layout."""
        if flat.dtype != torch.float32 or flat.shape != (self.numel, ) or not flat.is_contiguous():
            raise ValueError(f'a flat gradient buffer is contiguous fp32 of shape ({self.numel},), '
                             f'got {flat.dtype} of shape {tuple(flat.shape)}')

    @torch.no_grad()
    def accumulate_(self, buffer: Tensor, grads: Sequence[Tensor | None], scale: float, loop: str) -> None:
        """Add ``scale * grads`` of one micro-batch of ``loop`` to ``buffer``.

        Args:
            buffer: (numel,) fp32, changed in place.
            grads: N gradients of any float type, as ``torch.autograd.grad(loss, params, allow_unused=True)`` returns
                them; None where the graph does not reach the tensor.
            scale: usually 1 / number of micro-batches.
            loop: name of the loop.

        Raises:
            RuntimeError: when a tensor that the loop should reach has no gradient (a detached path, or reentrant
                gradient checkpointing, which loses LoRA gradients without a word), or when one that it should not
                reach has.
        """
        if len(grads) != len(self.names):
            raise ValueError(f'got {len(grads)} gradients for {len(self.names)} trainable tensors')
        expected = [loop in self.loops[group] for group in self.groups]
        lost = [name for name, grad, wanted in zip(self.names, grads, expected) if wanted and grad is None]
        if lost:
            raise RuntimeError(f"{loop_title(loop)} gives no gradient to '{lost[0]}' ({len(lost)} of the "
                               f'{sum(expected)} tensors it should train): its path is detached, or gradient '
                               'checkpointing is reentrant (use use_reentrant=False)')
        stray = [i for i, (grad, wanted) in enumerate(zip(grads, expected)) if not wanted and grad is not None]
        if stray:
            name, group = self.names[stray[0]], self.groups[stray[0]]
            raise RuntimeError(f"{loop_title(loop)} gives a gradient to '{name}' ({len(stray)} tensors in all), but "
                               f"group '{group}' is reached by {', '.join(self.loops[group])} only: add it to reaches "
                               'of the loop, for surgery to cover it')
        views = [view for view, wanted in zip(self.split(buffer), expected) if wanted]
        torch._foreach_add_(views, [grad for grad, wanted in zip(grads, expected) if wanted], alpha=scale)


def all_reduce_mean_(buffer: Tensor) -> Tensor:
    """Replace ``buffer`` by its mean over all ranks, with one all-reduce; without ``torch.distributed`` it stays."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(buffer, op=dist.ReduceOp.SUM)  # gloo has no AVG
        buffer.div_(dist.get_world_size())
    return buffer
