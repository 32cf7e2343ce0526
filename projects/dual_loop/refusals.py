"""Errors that the user has to mend become one line; faults of the code keep their traceback.

An error is a refusal if this project raised it in so many words: a ``raise`` statement of its own code, which by
custom names the file or the key and the remedy. So is what the system says about a file. What a library, or an
expression that failed, raises is a fault. ``DUAL_LOOP_TRACEBACK=1`` shows the traceback of refusals as well.
"""

import dis
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_PROJECTS = Path(__file__).resolve().parents[1]
_OWN = tuple(f'{folder}{os.sep}' for folder in (_PROJECTS, _PROJECTS.parent / 'tools'))
_PACKAGES = ('dual_loop', 'llava_sam2')
_REGISTRY = os.path.join('mmengine', 'registry', '')
#: Raised on purpose, these are sentences, and so are the project's own types; a plain RuntimeError is for developers.
_SENTENCES = (ValueError, OSError, LookupError, ImportError)


def refusal(error: BaseException) -> str | None:
    """The sentence for the user, or None if the error is a fault of the code."""
    place = _origin(error.__traceback__)
    own = place is not None and place.tb_frame.f_code.co_filename.startswith(_OWN)
    raised = own and dis.opname[place.tb_frame.f_code.co_code[place.tb_lasti]] == 'RAISE_VARARGS'
    if raised and (isinstance(error, _SENTENCES) or type(error).__module__.split('.')[0] in _PACKAGES):
        return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, OSError) and error.filename is not None:
        return f'{os.fsdecode(error.filename)}: {error.strerror}'
    if isinstance(error, KeyError) and place is not None and _REGISTRY in place.tb_frame.f_code.co_filename:
        return ' '.join(str(error.args[0]).split())  # no class of that name
    return None


def in_one_line(caller: str, act: Callable[[], int]) -> int:
    """Act and return the exit status; a refusal is one line on stderr after the caller's name, and status 1."""
    try:
        return act()
    except Exception as error:
        said = refusal(error)
        if said is None:
            raise
        complain(caller, error, said)
        return 1


def complain(caller: str, error: BaseException, said: str) -> None:
    """Say a refusal on stderr."""
    if os.environ.get('DUAL_LOOP_TRACEBACK'):
        traceback.print_exception(error)
    print(f'{caller}: {said}', file=sys.stderr)


def _origin(place: TracebackType | None) -> TracebackType | None:
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place
