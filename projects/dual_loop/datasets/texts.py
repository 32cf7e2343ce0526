"""Which texts can be kept and shown: file names and captions come from anywhere."""

import re


def is_utf8(text: str) -> bool:
    """Whether it can be stored as UTF-8: single surrogates cannot, which stand in names of files that are not UTF-8."""
    try:
        text.encode('utf-8')
    except UnicodeEncodeError:
        return False
    return True


def is_text(value: object) -> bool:
    """Whether it is a text that can be stored as UTF-8 and in which something can be seen."""
    return isinstance(value, str) and is_utf8(value) and \
        any(each.isprintable() and not each.isspace() for each in value)


def is_file_name(value: object) -> bool:
    """Whether it is the name of a file, without folders."""
    return isinstance(value, str) and is_text(value) and value not in ('.', '..') and not re.search('[/\0]', value)


def printable(value: object) -> str:
    """A text that can be written as UTF-8; what cannot stands as its number."""
    return str(value).encode('utf-8', 'backslashreplace').decode()
