"""Which texts can be kept and shown: file names and captions come from anywhere."""

import re


def is_text(value: object) -> bool:
    """Whether it is a text in which something can be seen and that can be stored as UTF-8: single surrogates cannot.

    A name of a file that is not UTF-8 has such surrogates.
    """
    return isinstance(value, str) and not re.search('[\ud800-\udfff]', value) and \
        any(character.isprintable() and not character.isspace() for character in value)


def is_file_name(value: object) -> bool:
    """Whether it is the name of a file, without folders."""
    return isinstance(value, str) and is_text(value) and value not in ('.', '..') and not re.search('[/\0]', value)


def printable(value: object) -> str:
    """A text that can be written as UTF-8; what cannot stands as its number."""
    return str(value).encode('utf-8', 'backslashreplace').decode()
