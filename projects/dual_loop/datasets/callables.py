"""Arguments that say how to make something: a callable, or a dictionary with its name and arguments."""

from collections.abc import Callable
from typing import Any

from mmengine.registry import FUNCTIONS
from mmengine.utils import get_object_from_string


def build(spec: Callable | dict) -> Any:
    """Call a callable, or the ``type`` of a dictionary with its other entries.

    Raises:
        ValueError: ``type`` is not, and does not name, a callable.
    """
    if not isinstance(spec, dict):
        return spec()
    arguments = dict(spec)
    named = arguments.pop('type')
    function = named_function(named)
    if not callable(function):
        raise ValueError(f'type={named!r} is neither registered in FUNCTIONS nor the dotted path of something that can '
                         'be called')
    return function(**arguments)


def named_function(named: Any) -> Any:
    """What a text names, in FUNCTIONS or by its dotted path as in a dumped config; anything else as it is."""
    if not isinstance(named, str):
        return named
    return FUNCTIONS.module_dict.get(named) or get_object_from_string(named)


def shared_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer of a ``dict(type=callable, ...)``, built once for all data sets; anything else as it is."""
    if not isinstance(tokenizer, dict):
        return tokenizer
    key = repr(tokenizer)
    if key not in _tokenizers:
        _tokenizers[key] = build(tokenizer)
    return _tokenizers[key]


_tokenizers: dict[str, Any] = {}
