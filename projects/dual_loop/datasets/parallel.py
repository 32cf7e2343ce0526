"""One function over many items in several processes, results in order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dual_loop.process_pool import process_pool
from llava_sam2.cores import usable_cores
from llava_sam2.progress import Progress

_MOST_WORKERS = 16  # more wait for the disk


def map_in_order(function: Callable[[Any], Any], items: Sequence, description: str,
                 num_workers: int | None = None, unit: str = 'parts') -> Iterator[Any]:
    """Yield ``function(item)`` for every item, in order, with a progress bar; the caller may stop early.

    Args:
        function: of a module's top level, since it goes to other processes by its name.
        items: what it is called with; each call should take a few milliseconds at least.
        description: beside the bar.
        num_workers: processes; default one per core, up to 16. With one, nothing leaves this process.
        unit: of the items, for the bar.
    """
    workers = min(num_workers or min(usable_cores(), _MOST_WORKERS), len(items))
    with Progress(len(items), description, unit) as progress:
        if workers < 2:
            for item in items:
                yield function(item)
                progress.update()
            return
        with process_pool(workers) as pool:
            for result in pool.map(function, items, chunksize=max(1, min(64, len(items) // (8 * workers)))):
                yield result
                progress.update()
