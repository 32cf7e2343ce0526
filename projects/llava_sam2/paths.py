"""Where relative paths of a config point to, what makes files last, and what a disk says that takes no more."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """Absolute paths stay; relative ones are read against the checkout, so that a config works from any folder."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else CHECKOUT / path


def keep_on_disk(path: Path) -> None:
    """Return when a file or the entries of a folder are on the disk itself, so that a power cut cannot take them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class CannotWrite(OSError):
    """Something could not be written; the message says what, where, why and what to do. What was begun is gone."""


@contextmanager
def writing(what: str, place: str | Path, remedy: str = '') -> Iterator[None]:
    """Turn a disk that refuses what the ``with`` block writes into one sentence.

    Args:
        what: is written, as the subject of the sentence.
        place: file or folder that it goes to.
        remedy: what to do, without a full stop; by default to make room where there is none, else another place.

    Raises:
        CannotWrite: in place of an error of the disk; other errors pass as they are.
    """
    try:
        yield
    except CannotWrite:
        raise
    except Exception as error:
        if (refusal := _refusal(error, Path(place).absolute())) is None:
            raise
        reason, is_full = refusal
        remedy = remedy or ('Make room there or choose another place' if is_full else
                            'Choose another place, or see who may write there')
        raise CannotWrite(f'{what} cannot be written to {place}: {reason}. {remedy}') from error


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: What only writing meets. Other errors count if they name the place.
_OF_WRITING = _FULL | {errno.EROFS}


def _refusal(error: Exception, place: Path) -> tuple[str, bool] | None:
    """Why a disk refused to be written, and whether it is full; None for another error."""
    if isinstance(error, OSError):
        files = [Path(os.fsdecode(name)).absolute() for name in (error.filename, error.filename2) if name is not None]
        here = any(place in (file, file.parent / file.stem, *file.parents) or file in place.parents
                   for file in files)  # the stem: what is written before it gets its name
        is_of_writing = error.errno in _OF_WRITING or here
        return (error.strerror or str(error), error.errno in _FULL) if is_of_writing else None
    text = str(error).splitlines()[0] if str(error) else ''
    if type(error).__name__ == 'SafetensorError' and (number := re.search(r'os error (\d+)|code: (\d+)', text)):
        return os.strerror(found := int(number[1] or number[2])), found in _FULL
    if isinstance(error, RuntimeError) and re.search('inline_container|PytorchStreamWriter', text):
        return f'torch could not write all of a file, as on a full disk ({text})', True
    return None


def write_whole(path: Path, text: str, what: str) -> None:
    """Write or replace a text file, whole or not at all; ``what`` it is stands in an error, see :func:`writing`."""
    partial = path.with_name(f'{path.name}.tmp')
    with writing(what, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding='utf-8')
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
