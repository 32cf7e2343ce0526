"""What to do about weights that are not there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .paths import resolve

_FILES = ('.pt', '.pth', '.safetensors')
#: How names of released models begin -> who publishes them.
_PUBLISHERS = {'Sa2VA': 'ByteDance', 'InternVL': 'OpenGVLab', 'sam2': 'facebook'}


def download_command(path: str | Path) -> str:
    """The command that fetches the model that a folder, or a file in it, is named after."""
    path, source = Path(path), hub_name(path) or 'OWNER/NAME'
    if path.suffix in _FILES:
        return f'hf download {source} {path.name} --local-dir {path.parent}'
    return f'hf download {source} --local-dir {path}'


def hub_name(path: str | Path) -> str | None:
    """The released model that a folder, or a file in it, is named after, as OWNER/NAME; None if it is named otherwise.
    """
    path = Path(path)
    publisher = next((owner for start, owner in _PUBLISHERS.items() if path.name.startswith(start)), None)
    name = path.stem.replace('_', '-') if path.suffix in _FILES else path.name
    return f'{publisher}/{name}' if publisher else None


def require_weights(model: Mapping[str, Any]) -> None:
    """Refuse the settings of a model whose weights or tokenizer are not there.

    Args:
        model: of a config; the base model, or one with loops that has it as ``base``.

    Raises:
        FileNotFoundError: names the key, the place and the command that fetches them.
    """
    inner = isinstance(model.get('base'), Mapping)
    settings, prefix = (model['base'], 'model.base') if inner else (model, 'model')
    for key in ('pretrained', 'tokenizer'):
        for path, name in _paths(settings.get(key), f'{prefix}.{key}'):
            if not resolve(path).exists():
                raise FileNotFoundError(f'{name} is {path!r}, and there is no {resolve(path)}: run '
                                        f'`{download_command(resolve(path))}`, or set {name} to where it is')


def _paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, key
    elif isinstance(value, Mapping) and 'type' not in value:  # a tokenizer that is built looks for its files itself
        yield from ((path, f'{key}.{part}') for part, path in value.items() if isinstance(path, str))
