"""The EMA teacher's values: an fp32 exponential moving average of the trainables, owned outside the model.

They may not live in the wrapped module: DeepSpeed casts a bf16 module's buffers as well, and in bf16 an average with
decay 0.999 stands still (docs/decisions.md, "Averages are fp32 and live outside the module"). Frozen tensors equal the
student's, so nobody averages them.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

# Elements that are cast to fp32 at a time when the parameters are not fp32: 128 MiB.
BUCKET = 1 << 25


class ExponentialMovingAverage:
    """fp32 moving average of named tensors: value += (1 - decay) * (parameter - value).

    The decay of the update after t updates is min(max_decay, (1 + t) / (10 + t)): 0.1 for the first, 0.5 for the ninth,
    0.99 from t = 890 on, 0.999 from t = 8 990 on. So the random start is forgotten quickly.

    Args:
        named_params: names and values of the trainables. The average starts as an fp32 copy, on their device.
        max_decay: in [0, 1).

    Attributes:
        values: name -> fp32 tensor.
        num_updates: t above.
    """

    def __init__(self, named_params: Iterable[tuple[str, Tensor]], max_decay: float = 0.999):
        if not 0 <= max_decay < 1:
            raise ValueError(f'EMA max_decay must lie in [0, 1), got {max_decay}')
        self.max_decay = max_decay
        self.num_updates = 0
        self.values: dict[str, Tensor] = {
            name: param.detach().to(torch.float32, copy=True) for name, param in named_params
        }
        if not self.values:
            raise ValueError('EMA of nothing: there is no trained parameter')

    @property
    def decay(self) -> float:
        """The decay that the next update will use."""
        return min(self.max_decay, (1 + self.num_updates) / (10 + self.num_updates))

    @torch.no_grad()
    def update(self, named_params: Iterable[tuple[str, Tensor]]) -> None:
        """Move the average towards the parameters; call it once per optimizer step that really happened.

        Args:
            named_params: exactly the names and shapes of the start, in any float type.
        """
        for values, params in self._buckets(named_params):
            torch._foreach_lerp_(values, params, 1 - self.decay)
        self.num_updates += 1

    @torch.no_grad()
    def distance(self, named_params: Iterable[tuple[str, Tensor]]) -> float:
        """|parameters - average| / |parameters| (L2 over all tensors together): how far the student has moved away."""
        difference, length = [], []
        for values, params in self._buckets(named_params):
            difference += torch._foreach_norm(torch._foreach_sub(params, values))
            length += torch._foreach_norm(params)
        moved, size = torch.stack([torch.stack(difference), torch.stack(length)]).double().norm(dim=1).tolist()
        return moved / size if size > 0 else float(moved > 0)

    def state_dict(self) -> dict:
        """``dict(num_updates=int, values={name: fp32 tensor})``; the tensors are the live ones, not copies."""
        return dict(num_updates=self.num_updates, values=dict(self.values))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping) -> None:
        """Take over what ``state_dict`` gave, strictly: the same names and shapes, fp32. On error nothing changes.

        Raises:
            ValueError: naming the first tensor that is missing, unexpected, of another shape, or not fp32.
        """
        loaded = state['values']
        for what, names in (('misses', self.values.keys() - loaded.keys()),
                            ('has the unexpected', loaded.keys() - self.values.keys())):
            if names:
                raise ValueError(f"the EMA checkpoint {what} '{min(names)}' ({len(names)} such tensors): it was "
                                 'written with other trainables; resume with the config it was trained with')
        for name, value in loaded.items():
            _check_shape(name, value, self.values[name])
            if value.dtype != torch.float32:
                raise ValueError(f"EMA checkpoint tensor '{name}' is {value.dtype}; the average is kept in fp32, "
                                 'and a rounded one cannot be continued exactly')
        for name, value in self.values.items():
            value.copy_(loaded[name])
        self.num_updates = int(state['num_updates'])

    def _buckets(self, named_params: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Pairs (averages, parameters as fp32), a bounded number of elements at a time."""
        params = dict(named_params)
        if params.keys() != self.values.keys():
            name = min(params.keys() ^ self.values.keys())
            raise KeyError(f"trainable '{name}' is {'missing now' if name in self.values else 'not in the EMA'}: "
                           'the set of trainables may not change during training')
        values, floats, size = [], [], 0
        for name, param in params.items():
            _check_shape(name, self.values[name], param)
            values.append(self.values[name])
            floats.append(param.detach().to(self.values[name]))
            size += param.numel()
            if size >= BUCKET:
                yield values, floats
                values, floats, size = [], [], 0
        if values:
            yield values, floats


def _check_shape(name: str, value: Tensor, target: Tensor) -> None:
    if value.shape != target.shape:
        raise ValueError(f"'{name}' has shape {tuple(value.shape)} on one side and {tuple(target.shape)} on the other")
