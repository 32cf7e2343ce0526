"""Files inside tar archives, found once and read by offset; nothing is ever extracted."""

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .index_store import unreadable
from .quarantine import BadSample

_PART = 2**20  # bytes read at once
_MOST_ZEROS = 1024 + 10_240  # bytes at the end: two blocks, and what fills up a record


class DamagedTar(ValueError):
    """A tar archive is not whole: cut off, zeros instead of a member, or no uncompressed tar at all."""


class LongEnd(DamagedTar):
    """A tar archive ends in more zeros than writers add: an end that has not arrived, or rare settings of a writer."""


def tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, size) of every plain file in an uncompressed tar, in bytes from its start.

    Links and devices are passed over. Everything up to the first damage is given before the error is raised.

    Raises:
        DamagedTar: it is no tar, or ends elsewhere than at blocks of zeros that go to the end of the file.
        LongEnd: there are too many of these.
        ValueError: a member or the target of a link lies outside the archive.
        PermissionError: it may not be read.
    """
    size = None
    for member in _headers(path):
        size = size or path.stat().st_size
        if _leads_out(member):
            raise ValueError(f'{path} is refused: its member {member.name!r} lies or leads outside the archive. Remove '
                             'it and download it again from its publisher')
        if member.isreg() and not member.issparse():
            if member.offset_data + member.size > size:
                raise DamagedTar(f'{path} is not a whole uncompressed tar archive ({member.name!r} is cut off at byte '
                                 f'{size}). Download it again')
            yield member.name, member.offset_data, member.size


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with open(path, 'rb') as stream, tarfile.open(fileobj=stream, mode='r:') as archive:
            yield from archive
            # tarfile takes a damaged or missing header for the end, and does not look for what follows the end.
            end = archive.offset
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f'cut off or damaged at byte {end}')
            while part := stream.read(_PART):
                if part.strip(b'\0'):
                    raise tarfile.ReadError(f'zeros from byte {end} on, where a member should be, and data behind them')
            zeros = stream.tell() - end
    except PermissionError as error:
        raise unreadable(error) from error
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise DamagedTar(f'{path} is not a whole uncompressed tar archive ({error}). Download it again') from error
    if zeros > _MOST_ZEROS:
        raise LongEnd(f'{path} is perhaps not a whole uncompressed tar archive: only zeros from byte {end} on, {zeros} '
                      'bytes. Download it again if members are missing')


def _leads_out(member: tarfile.TarInfo) -> bool:
    if member.size < 0 or member.name.startswith('/') or '..' in PurePosixPath(member.name).parts:
        return True
    if not (member.issym() or member.islnk()):
        return False
    # A symbolic link is relative to its own folder, a hard link to the archive.
    target = posixpath.join(posixpath.dirname(member.name) if member.issym() else '', member.linkname)
    return posixpath.normpath(target).split('/')[0] in ('', '..')


class TarReader:
    """Reads byte ranges of tar files. Each process opens a file when it first needs it; pickling drops the handles."""

    def __init__(self):
        self._handles: dict[Path, int] = {}
        self._process = os.getpid()

    def bytes_at(self, path: Path, offset: int, size: int) -> bytes:
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
