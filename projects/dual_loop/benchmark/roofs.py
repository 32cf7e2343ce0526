"""What a device can do at most, measured: arithmetic and memory."""

import time
from collections.abc import Callable

import torch


def measured_roofs(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """``tflops`` of a square matrix product and ``gb_per_s`` read and written by a copy."""
    cuda = device.type == 'cuda'
    side, size = (8192, 1 << 30) if cuda else (1024, 1 << 26)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return dict(tflops=2 * side**3 / _seconds(lambda: a @ b, device) / 1e12,
                gb_per_s=2 * size / _seconds(lambda: target.copy_(source), device) / 1e9)


def _seconds(work: Callable[[], object], device: torch.device, runs: int = 10) -> float:
    """The best of some runs."""
    best = float('inf')
    for _ in range(runs):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return best


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
