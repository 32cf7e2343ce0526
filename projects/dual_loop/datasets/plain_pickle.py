"""Pickles of plain data, read without running anything.

A pickle is a program for a small stack machine, and some of its instructions import and call what they name. Here only
those exist that build lists, dictionaries, tuples, texts, bytes, numbers, booleans and None.
"""

import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
_ENCODE = '_codecs.encode'
_OPCODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_NAMES = {code: name for name, code in _OPCODES.items()}
_KEYS = (str, bytes, int, float, bool, type(None))
# Instructions that pickle's own methods carry out. Frames and the memo are part of the encoding, not of the data.
_PLAIN = [
    'PROTO', 'FRAME', 'STOP', 'MARK', 'POP', 'POP_MARK', 'DUP', 'GET', 'BINGET', 'LONG_BINGET', 'PUT', 'BINPUT',
    'LONG_BINPUT', 'MEMOIZE', 'NONE', 'NEWTRUE', 'NEWFALSE', 'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1',
    'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'SHORT_BINUNICODE',
    'BINUNICODE', 'BINUNICODE8', 'SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1',
    'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT',
]
_ERRORS = (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError,
           struct.error, MemoryError)


class UnsafePickle(ValueError):
    """A pickle that names something to import or to call. None of it was run."""


def load_plain_pickle(data: bytes, source: str | Path) -> Any:
    """Read a pickle of plain data, of any protocol and of Python 2 or 3 (texts of Python 2 in UTF-8).

    Bytes written by protocol 0 to 2, which name ``_codecs.encode``, are read as well.

    Args:
        data: the pickle.
        source: file it comes from, for messages.

    Raises:
        UnsafePickle: it names a global or holds instructions that call something.
        ValueError: cut off, damaged, or nested so deeply or so often within itself that a reader could not cope.
    """
    try:
        content = _PlainUnpickler(io.BytesIO(data), encoding='utf-8').load()
        _check_nesting(content, len(data))
    except UnsafePickle as error:
        raise UnsafePickle(f'{source} is refused: {error}, but a pickle of data holds lists, dictionaries, texts and '
                           'numbers only. Nothing of it was run. Download it again from its publisher') from None
    except _ERRORS as error:
        raise ValueError(f'{source} is refused: it is damaged or no pickle ({str(error) or type(error).__name__}). '
                         'Download it again') from error
    return content


class _Opcodes(dict):
    def __missing__(self, code: int) -> None:
        if code in _NAMES:
            raise UnsafePickle(f'it holds the instruction {_NAMES[code]}')
        raise ValueError(f'unknown instruction {code}')


# pickle's version in C cannot be kept to a list of instructions, and reserves the memory that a length or a memo index
# of a few bytes asks for before it looks whether the file is that long. This one reads what is there.
class _PlainUnpickler(pickle._Unpickler):

    def find_class(self, module: str, name: str) -> str:
        if f'{module}.{name}' == _ENCODE:
            return _ENCODE  # a text that stands for the function: whatever is done with it, nothing can be called
        raise UnsafePickle(f'it names {module}.{name}')

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        is_encode = isinstance(function, str) and function == _ENCODE
        if not (is_encode and isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[0], str)
                and arguments[1] == 'latin1'):
            raise UnsafePickle('it calls something')
        self.append(arguments[0].encode('latin1'))

    # Keys are hashed, and a tuple nested a million times overflows the interpreter's stack there.

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    dispatch = _Opcodes({_OPCODES[name]: pickle._Unpickler.dispatch[_OPCODES[name]] for name in _PLAIN})
    dispatch |= {_OPCODES['GLOBAL']: pickle._Unpickler.load_global,
                 _OPCODES['STACK_GLOBAL']: pickle._Unpickler.load_stack_global, _OPCODES['REDUCE']: load_reduce,
                 _OPCODES['SETITEM']: load_setitem, _OPCODES['SETITEMS']: load_setitems, _OPCODES['DICT']: load_dict}


def _check_keys(keys: list) -> None:
    for key in keys:
        if not isinstance(key, _KEYS):
            raise ValueError(f'a key of a dictionary is a {type(key).__name__}')


def _check_nesting(content: Any, size: int) -> None:
    """Refuse what contains itself, or repeats parts by reference until it is larger than its ``size`` bytes."""
    level = {id(content): (content, 1)}  # everything at one depth that may hold more, and how often it stands there
    total = 0
    for _ in range(MAX_DEPTH):
        below: dict[int, tuple[Any, int]] = {}
        for container, times in level.values():
            if not isinstance(container, (list, tuple, dict)):
                continue
            total += times * len(container)
            for child in container.values() if isinstance(container, dict) else container:
                if isinstance(child, (list, tuple, dict)):
                    below[id(child)] = child, below.get(id(child), (child, 0))[1] + times
        if total > size:
            raise ValueError(f'it unfolds to more than {size} entries')
        if not below:
            return
        level = below
    raise ValueError(f'it is nested more than {MAX_DEPTH} levels deep')
