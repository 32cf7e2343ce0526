"""Files inside tar archives, found once and read by offset; nothing is ever extracted."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .quarantine import BadSample


def tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, size) of every plain file in an uncompressed tar, in bytes from its start.

    Raises:
        ValueError: not a tar, or one with a member whose path leads out of the archive.
    """
    try:
        with tarfile.open(path, 'r:') as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.name.startswith('/') or '..' in parts:
                    raise ValueError(f'{path} is refused: its member {member.name!r} lies outside the archive. Remove '
                                     'it and download it again from its publisher')
                if member.isreg() and not member.issparse():
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(f'{path} is not an uncompressed tar archive ({error}). Download it again') from error


class TarReader:
    """Reads byte ranges of tar files. Each process opens a file when it first needs it; pickling drops the handles."""

    def __init__(self):
        self._handles: dict[Path, int] = {}
        self._process = os.getpid()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """``size`` bytes of ``path`` from ``offset``.

        Raises:
            BadSample: the file is missing or ends earlier.
        """
        if self._process != os.getpid():
            self._handles, self._process = {}, os.getpid()
        try:
            if path not in self._handles:
                self._handles[path] = os.open(path, os.O_RDONLY)
            data = os.pread(self._handles[path], size, offset)
        except OSError as error:
            raise BadSample(f'cannot be read: {error.strerror}', path) from error
        if len(data) < size:
            raise BadSample(f'ends before byte {offset + size}', path)
        return data

    def close(self) -> None:
        """Close this process's handles; reading opens them again."""
        if self._process == os.getpid():
            for handle in self._handles.values():
                os.close(handle)
        self._handles = {}

    def __del__(self):
        self.close()

    def __getstate__(self) -> dict:
        return {}

    def __setstate__(self, state: dict) -> None:
        self.__init__()
