"""Refuses values of a config that are of another kind than their reader takes: ``model.tau=abc``."""

import inspect
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_SCALARS = (bool, int, float, str, NoneType)
_WORDS = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a text', NoneType: 'None'}


def check_value(value: Any, annotation: Any, stated: Any, path: str) -> None:
    """Compare a value with the annotation of the argument that it is for; without one, with what the file states.

    Only plain values are judged, for arguments that take nothing but plain values: a dict may build anything, and a
    text may name anything.

    Args:
        value: of the running config.
        annotation: of the argument; None or ``inspect.Parameter.empty`` if there is none.
        stated: by the config file at the same place; None for nothing.
        path: of the setting.

    Raises:
        ValueError: names the setting, the value and what is taken.
    """
    kinds = _kinds(annotation)
    if kinds is None and type(stated) in (bool, int, float):
        kinds = {bool} if type(stated) is bool else {float}
        if not isinstance(value, str):  # a list or a dict in place of a number may be meant
            return
    if kinds is None or value is None or not isinstance(value, (*_SCALARS, list, tuple, dict)):
        return
    if isinstance(value, dict) and 'type' in value:  # builds the value
        return
    fits = type(value) in kinds or float in kinds and type(value) is int or int in kinds and (
        isinstance(value, bool) or isinstance(value, float) and value.is_integer())
    if not fits:
        taken = ' or '.join(_WORDS[kind] for kind in _SCALARS if kind in kinds)
        raise ValueError(f'{path}={value!r}: {taken} is taken here. Correct it in the config or in --cfg-options')


def _kinds(annotation: Any) -> set[type] | None:
    """The plain types that an annotation allows; None if it allows others, or says nothing."""
    if annotation in (None, inspect.Parameter.empty):
        return None
    if annotation in _SCALARS:
        return {annotation}
    if get_origin(annotation) is Literal:
        return {type(each) for each in get_args(annotation)}
    if get_origin(annotation) not in (Union, UnionType):
        return None
    parts = [_kinds(NoneType if each is None else each) for each in get_args(annotation)]
    return None if None in parts else set().union(*(part for part in parts if part is not None))
