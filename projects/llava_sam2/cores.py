"""How many cores this process may use: what the scheduler lets it run on, and what its control group pays for."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS, _MOUNT = Path('/proc/self/cgroup'), Path('/sys/fs/cgroup')


def usable_cores(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int:
    """Cores of the affinity mask, or the quota of the control group rounded up, whichever is less; at least 1.

    A container with half a core of a machine with a hundred sees all hundred everywhere else.

    Args:
        groups: lists the control groups of the process.
        mount: folder of all control groups.
    """
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *_quotas(groups, mount)])))


def _quotas(groups: Path, mount: Path) -> Iterator[float]:
    """Cores of the group of this process and of every group above it, where they are limited."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        # Of version 1 there is a folder for the controllers; a container may not see its own path below it.
        root = mount / controllers
        folder = root / path.lstrip('/')
        for each in (folder, *folder.parents):
            if each.is_relative_to(root):
                yield from _quota(each)


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (whole := folder / 'cpu.max').is_file():  # version 2: "200000 100000", or "max 100000"
            quota, period = whole.read_text().split()
        elif (old := folder / 'cpu.cfs_quota_us').is_file():
            quota, period = old.read_text().strip(), (folder / 'cpu.cfs_period_us').read_text().strip()
        else:
            return
    except OSError:
        return
    if quota not in ('max', '-1'):
        yield int(quota) / int(period)
