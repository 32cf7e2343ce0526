"""Objects that are completed when their constructor has returned, so that it may set attributes in any order."""

from collections.abc import Callable
from functools import wraps
from typing import Any


class CompletedAfterInit:
    """Calls ``_complete`` once, after the outermost constructor of an object has returned.

    The constructors themselves see to it, not a metaclass's call, so that it also happens to an object that is made
    with ``kind.__new__(kind)`` and ``__init__``. An unpickled object was completed before. After an error in a
    constructor nothing is completed.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        owner = next(each for each in cls.__mro__ if '__init__' in vars(each))
        # A mixin's constructor is wrapped too: it may go on after it has called ours.
        if owner is cls or not issubclass(owner, CompletedAfterInit):
            cls.__init__ = _completing(cls.__init__)

    def _complete(self) -> None:
        raise NotImplementedError


class SetOnCompletion:
    """An attribute that an object has once it is completed; the error before says so."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise AttributeError(f'{type(instance).__name__}.{self.name} is there when the constructor has returned, not '
                             'within it: make what needs it where it is first used')


def _completing(init: Callable) -> Callable:
    @wraps(init)
    def __init__(self, *args, **kwargs):
        if '_in_constructor' in vars(self):
            init(self, *args, **kwargs)
            return
        self._in_constructor = True
        try:
            init(self, *args, **kwargs)
        finally:
            del self._in_constructor
        self._complete()

    return __init__
