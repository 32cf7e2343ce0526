"""The smallest model, data set and loop that stock XTuner can train: a linear map fitted to random data."""
import torch
from mmengine.model import BaseModel
from torch.utils.data import Dataset
from xtuner.engine.runner import TrainLoop

from dual_loop.engine.config_check import check_config_keys


class ToyDataset(Dataset):
    def __init__(self, length: int = 16, width: int = 4):
        self.data = torch.randn(length, width, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        return dict(x=self.data[index], y=self.data[index].flip(0))


class ToyModel(BaseModel):
    def __init__(self, width: int = 4, fail_at: int | None = None, head: dict | None = None):
        super().__init__()
        self.linear = torch.nn.Linear(width, width, **(head or {}))
        self.fail_at = fail_at
        self.calls = 0

    def forward(self, x, y=None, data_samples=None, mode='loss'):
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError('the toy model was told to fail here')
        x, y = (t.to(self.linear.weight) for t in (x, y))
        return dict(loss=(self.linear(x) - y).square().mean())


class CheckedTrainLoop(TrainLoop):
    """XTuner's own loop, which first refuses settings that nothing reads."""

    def __init__(self, runner, dataloader, **kwargs):
        check_config_keys(runner.cfg)
        super().__init__(runner, dataloader, **kwargs)
