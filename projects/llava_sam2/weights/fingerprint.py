"""Fingerprint of base weights: which weights a run was trained from, and a cache of it beside them."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

#: Name of the cache in a folder of weights; a single file has one of its own.
CACHE = '.fingerprint.json'
#: Combinations of files that one cache remembers, the latest ones.
_KEPT = 16


class Fingerprint:
    """sha256 over names, shapes, types and bytes of tensors, given one by one in the order of their released names."""

    def __init__(self):
        self._digest = hashlib.sha256()
        self._last = ''

    def update(self, name: str, tensor: torch.Tensor) -> None:
        """Add a tensor on the CPU.

        Raises:
            ValueError: names must come sorted and once.
        """
        if name <= self._last:
            raise ValueError(f'{name} comes after {self._last}: a fingerprint takes tensors sorted by name')
        self._last = name
        self._digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}\n'.encode())
        self._digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Fingerprint (hex) of tensors in memory, by released name."""
    result = Fingerprint()
    for name in sorted(tensors):
        result.update(name, tensors[name])
    return result.hexdigest()


class FingerprintCache:
    """A note beside the weights of what their fingerprint is, valid while sizes and times of the files are the same.

    Args:
        source: the folder or file that the note is kept for.
        files: all files that the weights are put together from.
        settings: what else decides the result, as text.
    """

    def __init__(self, source: Path, files: Iterable[Path], settings: str = ''):
        self.folder = source if source.is_dir() else source.parent
        self.path = self.folder / (CACHE if source.is_dir() else f'.{source.name}{CACHE}')
        state = [settings]
        for file in sorted(files):
            stat = file.stat()
            state.append(f'{os.path.relpath(file, self.folder)} {stat.st_size} {stat.st_mtime_ns}')
        self._key = hashlib.sha256('\n'.join(state).encode()).hexdigest()

    def known(self) -> str | None:
        """The fingerprint noted for these very files, or None."""
        value = self._notes().get(self._key)
        return value if isinstance(value, str) else None

    def write(self, value: str) -> None:
        """Note it; says so once and goes on where that is not possible."""
        notes = [(key, note) for key, note in self._notes().items() if key != self._key][1 - _KEPT:]
        partial = self.path.with_name(f'{self.path.name}.{os.getpid()}')
        try:
            partial.write_text(json.dumps(dict([*notes, (self._key, value)]), indent=1), encoding='utf-8')
            partial.replace(self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            warnings.warn(
                f'cannot keep the fingerprint of the weights beside them ({error}); it is computed again at each start',
                stacklevel=2,
            )

    def _notes(self) -> dict:
        try:
            notes = json.loads(self.path.read_text(encoding='utf-8'))
        except (OSError, ValueError):  # none yet, or cut off: it is computed anew
            return {}
        return notes if isinstance(notes, dict) else {}
