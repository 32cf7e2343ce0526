"""The file of captions beside a folder of pictures: names to sentences, and where each stands."""

import csv
import io
import json
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
        line: of a table, from 1; 0 in JSON, which programs write in one line: there the name tells the place.
        problem: what is wrong; '' if nothing is.
    """

    name: str
    text: str
    line: int
    problem: str = ''

    def located(self, problem: str) -> str:
        """A problem with its place in the file, which is not named."""
        if self.line:
            return f'line {self.line}: {problem}'
        return problem if repr(self.name) in problem else f'{self.name!r}: {problem}'


def captions_file(folder: Path) -> Path | None:
    """The file of captions of a folder; None if there is none. Raises ``ValueError`` if there are two."""
    found = [folder / name for name in FILES if (folder / name).exists()]
    if len(found) > 1:
        raise ValueError(f'{folder} has {" and ".join(FILES)}: remove one of them')
    return found[0] if found else None


def read_sentences(file: Path) -> list[Sentence]:
    """All sentences of a ``captions.json`` or ``captions.csv``, in order.

    Raises:
        ValueError: not such a file; names the place where there is one.
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
        raise ValueError(f'{file}, line {error.lineno}, column {error.colno}: {error.msg}; {FORMAT}') from error
    except ValueError as error:
        raise ValueError(f'{file}: {error}; {FORMAT}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{file}: it holds a {type(content).__name__}, not an object; {FORMAT}')
    for name, value in content.items():
        if isinstance(content, RepeatedKeys) and name in content.repeated:
            yield Sentence(name, '', 0, 'the name stands there twice: give one list of its sentences')
            continue
        values = value if isinstance(value, list) else [value]
        if not values:
            yield Sentence(name, '', 0, 'the list of sentences is empty: write a sentence or remove the name')
        for each in values:
            yield _checked(name, each)


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


def _checked(name: str, value: object, line: int = 0) -> Sentence:
    remedy = f'write a sentence or remove the {"line" if line else "name"}'
    if not is_text(name):
        return Sentence(str(name), '', line, 'there is no name: give that of a mask or picture')
    if not isinstance(value, str):
        return Sentence(name, '', line, f'the caption is no text but {type(value).__name__}: {remedy}')
    if not is_text(value):
        return Sentence(name, '', line, f'the caption is empty: {remedy}')
    return Sentence(name, ' '.join(value.split()), line)
