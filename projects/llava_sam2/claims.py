"""A file that says which process works in a place, on file systems with and without locks.

``flock`` is missing on many cluster and cloud file systems, or holds for one host only. A claim is a file made with
``O_EXCL``, which all of them have. Its owner gives a sign of life every so often, so that a claim whose process is gone
can be taken over: at once where that can be seen (the same host), else when there has been no sign for long.
"""

import atexit
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

#: Seconds without a sign of life after which a claim may be taken over, and between two signs.
STALE = 300.0
BEAT = 20.0
#: Seconds between two looks of a process that waits.
_POLL = 0.1


class Claimed(RuntimeError):
    """Another process has the claim."""

    def __init__(self, owner: 'Owner', silent: float):
        self.owner, self.silent = owner, silent
        super().__init__(f'{owner} (last sign of life {max(0.0, silent):.0f} s ago)')


class LostClaim(RuntimeError):
    """Another process has taken the claim over."""


@dataclass(frozen=True)
class Owner:
    """A process, as others can recognise it.

    Attributes:
        host: its name.
        pid: number of the process.
        place: kernel and process namespace in which ``pid`` means something, since containers may have equal host
            names; empty where there is none to see.
        started: when the process began, in ticks of that kernel, since numbers are used again.
        token: of this one claim.
    """

    host: str
    pid: int
    place: str
    started: str
    token: str

    def __str__(self) -> str:
        return f'process {self.pid} on host {self.host}' if self.pid else 'a process that has not given its name'

    @classmethod
    def here(cls) -> 'Owner':
        return cls(socket.gethostname(), os.getpid(), _place(), _start_of(os.getpid()) or '', uuid.uuid4().hex)

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; False where that cannot be seen from here."""
        if not self.pid or not self.place or self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # of another user
            pass
        started = _start_of(self.pid)
        return started == '' or started is not None and started != self.started


def _place() -> str:
    try:
        kernel = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{kernel} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return ''


def _start_of(pid: int) -> str | None:
    """When a process began; '' if it has ended and only its parent has not noticed, None if that cannot be read."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return None
    return '' if fields[0] in 'ZX' else fields[19]


class Claim:
    """The claim of this process on a file.

    Args:
        path: the file; its folder must be there. Beside it appear short-lived files with its name and an ending.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.owner: Owner | None = None
        self._ended = threading.Event()

    def take(self) -> None:
        """Make the claim, or take it over from a process that is gone.

        Raises:
            Claimed: another process has it.
            OSError: the file cannot be written.
        """
        mine = Owner.here()
        while not self._create(mine):
            if (found := self._read()) is None:  # it was just given back
                time.sleep(_POLL)
                continue
            owner, silent = found
            if not owner.is_dead and silent <= STALE:
                raise Claimed(owner, silent)
            if self._replace(owner, mine):
                break
            time.sleep(_POLL)  # another process is at it
        self.owner = mine
        self._ended.clear()
        atexit.register(self.release)
        threading.Thread(target=self._beat, args=(mine, ), daemon=True, name=f'claim {self.path.name}').start()

    def wait(self, told: Callable[[Owner], None] | None = None) -> None:
        """Take the claim as soon as no other process has it; ``told`` is called once if that takes a while."""
        started = time.monotonic()
        while True:
            try:
                return self.take()
            except Claimed as error:
                if told is not None and time.monotonic() - started > 0.5:
                    told(error.owner)
                    told = None
            time.sleep(_POLL)

    def check(self) -> None:
        """Make sure that the claim is still this process's; a file that was deleted is made again.

        Raises:
            LostClaim: it is another's, for example because this process slept for long.
            OSError: the file can no longer be written.
        """
        if self._read() is None:
            self._create(self.owner)
        found = self._read()
        if found is None or found[0] != self.owner:
            raise LostClaim(f'{self.path} was taken over by {found[0] if found else "another process"}')

    def release(self) -> None:
        """Give the claim back, if this process has it."""
        atexit.unregister(self.release)
        if self.owner is None or self.owner.pid != os.getpid():  # a fork of the owner's process
            return
        self._ended.set()
        found = self._read()
        if found is not None and found[0] == self.owner:
            with suppress(OSError):  # it vanished, or its folder can no longer be written: nothing is held any more
                self.path.unlink()
        self.owner = None

    def _create(self, mine: Owner) -> bool:
        return _make(self.path, json.dumps(asdict(mine)))

    def _read(self) -> tuple[Owner, float] | None:
        """The owner and the seconds since its last sign of life; None if there is no claim."""
        try:
            status = self.path.stat()
            text = self.path.read_text(encoding='utf-8', errors='replace')
        except FileNotFoundError:
            return None
        try:
            owner = Owner(**json.loads(text))
        except (ValueError, TypeError):  # not yet, or not wholly written: known by its file alone
            owner = Owner('', 0, '', '', f'{status.st_ino:x}-{status.st_mtime_ns:x}')
        silent = time.time() - status.st_mtime
        if abs(silent) > STALE / 2:  # else a clock that differs from the file system's cannot matter
            silent = self._file_time() - status.st_mtime
        return owner, silent

    def _file_time(self) -> float:
        """Now, by the clock of the file system, which may be another machine's."""
        probe = self.path.with_name(f'{self.path.name}.{uuid.uuid4().hex}')
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink()

    def _replace(self, gone: Owner, mine: Owner) -> bool:
        """Put this process in the place of ``gone``; False if another one is quicker.

        Who replaces a claim must first make a file that is named after it, so that of several one does.
        """
        turn = self.path.with_name(f'{self.path.name}.{gone.token}')
        if not _make(turn, ''):
            with suppress(FileNotFoundError):
                if self._file_time() - turn.stat().st_mtime > STALE:  # it ended in the middle of this
                    turn.unlink()
            return False
        fresh = self.path.with_name(f'{self.path.name}.{mine.token}')
        try:
            found = self._read()
            if found is None or found[0] != gone:
                return False
            if not _make(fresh, json.dumps(asdict(mine))):
                return False
            fresh.replace(self.path)
            return True
        finally:
            fresh.unlink(missing_ok=True)
            turn.unlink(missing_ok=True)

    def _beat(self, mine: Owner) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # the folder is out of reach for a while; check() tells whether it matters
                found = self._read()
                if found is not None and found[0] != mine:
                    return
                os.utime(self.path)


def _make(path: Path, text: str) -> bool:
    """Write a file that was not there; False if it was."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(handle, text.encode())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return True


@contextmanager
def alone(path: str | Path, told: Callable[[Owner], None] | None = None) -> Iterator[None]:
    """Run the ``with`` block in one process at a time, see :meth:`Claim.wait`; also of the threads of a process."""
    claim = Claim(path)
    claim.wait(told)
    try:
        yield
    finally:
        claim.release()
