"""The file of captions beside a folder of pictures: names to sentences, with the line of each."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .json_files import RepeatedKeys, parse_json, read_whole
from .texts import is_text

FILES = ('captions.json', 'captions.csv')
FORMAT = ('captions.json is {"NAME": "sentence", "OTHER": ["sentence", "another"]}, captions.csv has the columns '
          'name,caption')
_COLUMNS = ('name', 'caption')
_LONGEST_CELL = 2**24


class Sentence(NamedTuple):
    """What one place of a file of captions says.

    Attributes:
        name: of a picture, mask or object, as it stands there.
        text: without blanks around it; '' where there is none that can be used.
        line: of the file, from 1; 0 if it is not known.
        problem: what is wrong; '' if nothing is.
    """

    name: str
    text: str
    line: int
    problem: str = ''

    def place(self, file: Path) -> str:
        """File and line in words."""
        return f'{file.name}, line {self.line}' if self.line else file.name


def captions_file(folder: Path) -> Path | None:
    """The file of captions of a folder; None if there is none. Raises ``ValueError`` if there are two."""
    found = [folder / name for name in FILES if (folder / name).exists()]
    if len(found) > 1:
        raise ValueError(f'{folder} has {" and ".join(FILES)}: remove one of them')
    return found[0] if found else None


def read_sentences(file: Path) -> list[Sentence]:
    """All sentences of a ``captions.json`` or ``captions.csv``, in order.

    Raises:
        ValueError: not such a file; names the line where there is one.
    """
    data = read_whole(file)
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b'\n') + 1
        raise ValueError(f'{file}, line {line}: the file is not UTF-8; save it as UTF-8 (in a spreadsheet "CSV UTF-8")'
                         ) from error
    return list((_of_json if file.suffix == '.json' else _of_csv)(file, text))


def _of_json(file: Path, text: str) -> Iterator[Sentence]:
    try:
        content = parse_json(text.encode('utf-8', 'surrogatepass'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{file}, line {error.lineno}: {error.msg}; {FORMAT}') from error
    except ValueError as error:
        raise ValueError(f'{file}: {error}; {FORMAT}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{file}, line 1: it holds a {type(content).__name__}, not an object; {FORMAT}')
    lines = _lines_of_keys(text)
    for name, value in content.items():
        found = lines.get(name, [0])
        if isinstance(content, RepeatedKeys) and name in content.repeated:
            yield Sentence(name, '', found[-1], f'the name stands there twice (line {found[0]} too): give one list of '
                           'its sentences')
            continue
        values = value if isinstance(value, list) else [value]
        if not values:
            yield Sentence(name, '', found[0], 'the list of sentences is empty: remove the name')
        for each in values:
            yield _checked(name, each, found[0])


def _lines_of_keys(text: str) -> dict[str, list[int]]:
    """Name -> lines in which it is a key of the outermost object."""
    found: dict[str, list[int]] = {}
    depth, line, counted = 0, 1, 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"(\s*:)?|[\[{]|[\]}]', text, re.S):
        line += text.count('\n', counted, token.start())
        counted = token.start()
        if token[0] in '[{':
            depth += 1
        elif token[0] in ']}':
            depth -= 1
        elif token[1] and depth == 1:
            name = json.loads(token[0][:-len(token[1])], strict=False)
            found.setdefault(name, []).append(line)
    return found


def _of_csv(file: Path, text: str) -> Iterator[Sentence]:
    header = text.partition('\n')[0]
    delimiter = max(',;\t', key=header.count)
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    try:
        columns = [each.strip().lower() for each in next(rows, [])]
        if [columns.count(each) for each in _COLUMNS] != [1, 1]:
            raise ValueError(f'{file}, line 1: the first line must be name,caption and is {header.strip()[:80]!r}; '
                             f'{FORMAT}')
        name_at, caption_at = map(columns.index, _COLUMNS)
        line = rows.line_num + 1
        for row in rows:
            if len(row) == len(columns):
                yield _checked(row[name_at].strip(), row[caption_at], line)
            elif any(each.strip() for each in row):
                yield Sentence(row[name_at].strip() if len(row) > name_at else '', '', line,
                               f'the line has {len(row)} cells, the first line {len(columns)}: put a sentence with '
                               f'{delimiter!r} into double quotes')
            line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f'{file}, line {rows.line_num}: {error}; {FORMAT}') from error


def _checked(name: str, value: object, line: int) -> Sentence:
    if not is_text(name):
        return Sentence(str(name), '', line, 'there is no name')
    if not isinstance(value, str):
        return Sentence(name, '', line, f'the caption is no text but {type(value).__name__}')
    if not is_text(value):
        return Sentence(name, '', line, 'the caption is empty: write a sentence or remove the line')
    return Sentence(name, ' '.join(value.split()), line)
