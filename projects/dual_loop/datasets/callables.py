"""Arguments that say how to make something: a callable, or a dictionary with its name and arguments."""

from collections.abc import Callable
from typing import Any

from mmengine.utils import get_object_from_string


def build(spec: Callable | dict) -> Any:
    """Call a callable, or the ``type`` of a dictionary with its other entries; a dumped config names it by its path."""
    if not isinstance(spec, dict):
        return spec()
    arguments = dict(spec)
    function = named = arguments.pop('type')
    if isinstance(named, str):
        function = get_object_from_string(named)
    if not callable(function):
        raise ValueError(f'type={named!r} is not the dotted path of something that can be called')
    return function(**arguments)


def shared_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer of a ``dict(type=callable, ...)``, built once for all data sets; anything else as it is."""
    if not isinstance(tokenizer, dict):
        return tokenizer
    key = repr(tokenizer)
    if key not in _tokenizers:
        _tokenizers[key] = build(tokenizer)
    return _tokenizers[key]


_tokenizers: dict[str, Any] = {}
