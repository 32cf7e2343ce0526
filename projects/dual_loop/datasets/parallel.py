"""One function over many items in several processes, results in order."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from dual_loop.process_pool import process_pool

_MOST_WORKERS = 16  # more wait for the disk


def map_in_order(function: Callable[[Any], Any], items: Sequence, description: str,
                 num_workers: int | None = None) -> Iterator[Any]:
    """Yield ``function(item)`` for every item, in order, with a progress bar; the caller may stop early.

    Args:
        function: of a module's top level, since it goes to other processes by its name.
        items: what it is called with; each call should take a few milliseconds at least.
        description: beside the bar.
        num_workers: processes; default one per core, up to 16. With one, nothing leaves this process.
    """
    workers = min(num_workers or min(len(os.sched_getaffinity(0)), _MOST_WORKERS), len(items))
    # A log file should not fill with bars.
    bar = tqdm(total=len(items), desc=description, leave=False, delay=1,
               mininterval=0.5 if sys.stderr.isatty() else 30)
    with bar:
        if workers < 2:
            for item in items:
                yield function(item)
                bar.update()
            return
        with process_pool(workers) as pool:
            for result in pool.map(function, items, chunksize=max(1, min(64, len(items) // (8 * workers)))):
                yield result
                bar.update()
