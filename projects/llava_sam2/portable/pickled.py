"""Pickled checkpoints, read without running anything that they say.

torch's ``weights_only`` reader builds tensors and plain containers and refuses every other global. Training frameworks
pickle a few more classes beside the tensors: histories of the log, settings, numpy numbers. Nothing here needs their
values, so each of them is read as an :class:`Inert` object, and nothing but the names below gets past the reader.
"""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

#: What mmengine, numpy and argparse leave in a checkpoint; numpy 1 and 2 spell their modules differently.
INERT_GLOBALS = (
    'mmengine.logging.history_buffer.HistoryBuffer',
    'mmengine.config.config.ConfigDict',
    'mmengine.config.config.Config',
    'numpy.ndarray',
    'numpy.dtype',
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')),
    'argparse.Namespace',
)
_HISTORY_METHODS = ('min', 'max', 'current', 'mean')


class CheckpointError(ValueError):
    """A checkpoint that does not fit; the message names the file, the tensors and what to do."""


class Inert:
    """Stands for an object whose class is not loaded: it takes any arguments and state and keeps nothing."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _InertHistory(Inert):
    """Stands for mmengine's HistoryBuffer."""


def _history_method(owner: Any, name: Any) -> None:
    """Stands for ``builtins.getattr``, by which mmengine pickles the statistics of HistoryBuffer; gives nothing."""
    if owner is not _InertHistory or name not in _HISTORY_METHODS:
        raise UnpicklingError(f'GLOBAL builtins.getattr is called for {name!r}, which is no statistic of mmengine')


def read_pickled(path: str | Path) -> Any:
    """What a ``.pth`` or ``.pt`` file holds, its tensors mapped from the file and not yet in memory.

    Files from before torch 1.6 cannot be mapped and are read whole.

    Raises:
        CheckpointError: the file is damaged, no checkpoint, or names a global that is not allowed; nothing was run.
    """
    path = Path(path)
    try:
        with _allowed_globals():
            return torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise CheckpointError(f'{path} is missing') from error
    except Exception as error:  # whatever damaged bytes make the reader raise
        named = re.search(r'GLOBAL (\S+)', str(error))
        if named:
            raise CheckpointError(
                f'{path} wants {named[1]} to be called or built while it is read, which a file of weights has no need '
                'of; nothing was run. Take the file from its publisher again, or ask for it as safetensors.'
            ) from error
        reason = (str(error).splitlines() or [''])[0][:200]
        raise CheckpointError(
            f'{path} is no checkpoint of torch, or it is damaged ({type(error).__name__}: {reason}); copy or download '
            'it again'
        ) from error


@contextmanager
def _allowed_globals() -> Iterator[None]:
    """Exactly our names, whatever other libraries have allowed, which come back afterwards."""
    before = get_safe_globals()
    clear_safe_globals()
    try:
        history, *others = INERT_GLOBALS
        add_safe_globals([
            (_InertHistory, history), *((Inert, name) for name in others), (_history_method, 'builtins.getattr')
        ])
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)
