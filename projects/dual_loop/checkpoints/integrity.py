"""Whether files are what was written: check sums of a checkpoint, and their comparison."""

import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

_REMEDY = 'take another checkpoint, or copy it again from where it is whole'
#: Files found to be whole, by path, size and time of change: nothing is read twice in one process.
_WHOLE: set[tuple[str, int, int]] = set()


def sums_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File name -> sha256 (hex), several files at a time."""
    names = list(names)
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing leaves the interpreter free
        return dict(zip(names, pool.map(lambda name: _sum_of(folder / name), names)))


def _sum_of(file: Path) -> str:
    with file.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def sum_of_values(values: Mapping[str, Any]) -> str:
    """sha256 (hex) of plain values, the same before they are written as JSON and after they are read."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(values)), sort_keys=True).encode()).hexdigest()


def sums_of_engine_parts(folder: Path, rank: int) -> dict[str, str]:
    """File name -> sum of what DeepSpeed wrote in the process of ``rank``; the first one's has what all share."""
    parts = {file.name: re.search(r'zero_pp_rank_(\d+)_', file.name) for file in folder.glob('*.pt')}
    return sums_of(folder, (name for name, found in sorted(parts.items()) if int(found[1] if found else 0) == rank))


def check_sums(folder: Path, sums: Mapping[str, str], names: Collection[str]) -> None:
    """Compare files of a folder with their sums; those without one are left out.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is another one than was written.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(f'{folder} has no {missing[0]}, which was written with it: {_REMEDY}')
    for name, found in sums_of(folder, (name for name in names if name in sums and not _known(folder / name))).items():
        if found != sums[name]:
            raise damaged(folder / name, 'its sha256 is not the one in state.json')
        _WHOLE.add(_state(folder / name))


def check_zip(file: Path) -> None:
    """Compare every record of a zip archive, which ``torch.save`` writes, with its CRC.

    Raises:
        ValueError: a record differs, or the archive cannot be read.
    """
    if _known(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            record = archive.testzip()
        torch._C.PyTorchFileReader(str(file))  # reads its directory, and minds some more bytes there
    except Exception as error:  # whatever damaged bytes make the reader raise
        raise damaged(file, f'{type(error).__name__}: {error}') from error
    if record is not None:
        raise damaged(file, f'the CRC of {record} is wrong')
    _WHOLE.add(_state(file))


def damaged(file: Path, reason: str) -> ValueError:
    return ValueError(f'{file} is damaged ({reason}): {_REMEDY}')


def _known(file: Path) -> bool:
    return _state(file) in _WHOLE


def _state(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_mtime_ns
