"""Damage to single entries of annotations, tables and archives."""

import csv
import io
import json
import math
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from kinds import kind
from PIL import Image

#: Values that no annotation has. Numbers that could be meant have no oracle.
WEIRD = (None, [], {}, '', ' ', '\ud800', [[]], dict(size=[1, 1]), math.nan, math.inf, -math.inf, 10**400, -10**30,
         'NaN')
DEEP = '[' * 100_000 + ']' * 100_000


# Annotations ---------------------------------------------------------------------------------------------------------

@kind('.json', '.p')
def weird_value(rng, root, file):
    """Some value is one that cannot be meant."""
    content = _load(file)
    places = [place for place in _places(content) if place[-1] not in ('split', 'sent_id', 'ref_id')]
    place = places[int(rng.integers(len(places)))]
    value = WEIRD[int(rng.integers(len(WEIRD)))]
    if value in ([], {}, '', None) and place[-1] in ('sentences', 'masklet', 'annotations', 'images', 'segmentation'):
        return None  # a list may be empty
    if isinstance(value, list) and isinstance(place[-1], int) or 'masklet' in place and not value:
        return None  # lists of regions may lie in lists; an object need not have a mask at every frame
    _at(content, place[:-1])[place[-1]] = value
    _store(file, content)
    return f'{".".join(map(str, place))} = {str(value)[:20]!r}'


@kind('.json')
def deep_json(rng, root, file):
    text = file.read_text()
    place = text.index(':', int(rng.integers(len(text) // 2))) + 1
    file.write_text(text[:place] + DEEP + text[place:] if rng.integers(2) else DEEP)
    return '100 000 levels'


@kind('.json', '.p')
def repeated_id(rng, root, file):
    """Two entries of a list have one id: whose is it?"""
    content = _load(file)
    ids = [place for place in _places(content) if place[-1] in ('id', 'ref_id', 'sent_id')]
    lists: dict[tuple, list] = {}
    for place in ids:
        lists.setdefault((place[:-2], place[-1]), []).append(place)
    several = [places for places in lists.values() if len(places) > 1]
    if not several:
        return None
    one, two = rng.permutation(len(places := several[int(rng.integers(len(several)))]))[:2]
    _at(content, places[one][:-1])[places[one][-1]] = _at(content, places[two])
    _store(file, content)
    return f'{".".join(map(str, places[one]))} is that of {".".join(map(str, places[two]))}'


@kind('.json', '.p')
def repeated_entry(rng, root, file):
    """An entry of a list stands there twice."""
    content = _load(file)
    entries = [place for place in _places(content) if isinstance(place[-1], int)
               and isinstance(entry := _at(content, place), dict) and 'counts' not in entry]
    if not entries:
        return None
    place = entries[int(rng.integers(len(entries)))]
    _at(content, place[:-1]).append(_at(content, place))
    _store(file, content)
    return f'{".".join(map(str, place))} again'


@kind('.json', '.p')
def sides_swapped(rng, root, file):
    """Of a mask or a picture that is not square."""
    content = _load(file)
    places = [place for place in _places(content) if place[-1] == 'size' and len(set(_at(content, place))) == 2]
    if not places:
        return None
    place = places[int(rng.integers(len(places)))]
    _at(content, place).reverse()
    _store(file, content)
    return '.'.join(map(str, place))


@kind('.json')
def degenerate_polygons(rng, root, file):
    content = _load(file)
    polygons = [place for place in _places(content) if place[-1] == 'segmentation'
                and isinstance(_at(content, place), list)]
    for place in polygons:
        _at(content, place).insert(int(rng.integers(2)), [[], [5, 5], [2, 2, 30, 30]][int(rng.integers(3))])
    _store(file, content)
    return f'{len(polygons)} objects with one more polygon' if polygons else None


@kind('.json')
def lost_runs(rng, root, file):
    """Counts of a mask end early."""
    content = _load(file)
    places = [place for place in _places(content) if place[-1] == 'counts' and len(_at(content, place)) > 8]
    if not places:
        return None
    place = places[int(rng.integers(len(places)))]
    counts = _at(content, place)
    _at(content, place[:-1])['counts'] = counts[:int(rng.integers(len(counts) - 1))]
    _store(file, content)
    return '.'.join(map(str, place))


@kind('.csv')
def weird_cell(rng, root, file):
    with open(file, newline='') as stream:
        rows = list(csv.reader(stream))
    row, column = int(rng.integers(1, len(rows))), int(rng.integers(len(rows[0])))
    value = ['', 'x"y', '\0', 'nan', '1e999', '../up.png', '/etc/passwd', 'é' * 9, 'a,b', '\n'][int(rng.integers(10))]
    # Any text may be the name of a class, and any number a box.
    if rows[0][column] in ('LabelName', 'DisplayName') and value:
        return None
    rows[row][column] = value
    with open(file, 'w', newline='') as stream:
        csv.writer(stream, lineterminator='\n').writerows(rows)
    return f'row {row}, {rows[0][column]} = {value[:9]!r}'


@kind('.csv')
def repeated_row(rng, root, file):
    lines = file.read_bytes().splitlines(keepends=True)
    place = int(rng.integers(1, len(lines)))
    file.write_bytes(b''.join([*lines, lines[place]]))
    return f'row {place} again'


@kind('.csv')
def not_utf8(rng, root, file):
    data = file.read_bytes()
    place = int(rng.integers(data.index(b'\n') + 1, len(data) - 1))
    file.write_bytes(data[:place] + b'\xe9' + data[place:])
    return f'a byte 0xe9 at {place}'


# Archives ------------------------------------------------------------------------------------------------------------

@kind('.tar')
def rewritten_archive(rng, root, file):
    """A member is lost, there twice, empty, hidden, of a name that is not UTF-8, or has another one's content."""
    with tarfile.open(file) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]
    pictures = [k for k, (name, _) in enumerate(members) if name.endswith('.jpg')]
    place, other = (int(each) for each in rng.choice(pictures, 2, replace=False))
    name, data = members[place]
    what = ('lost', 'empty', 'hidden', 'not utf-8', 'other content', 'gzip')[int(rng.integers(6))]
    if what == 'lost':
        del members[place]
    elif what == 'hidden':
        members.insert(place, (f'./._{name}', b'\0\5\x16\7' + bytes(100)))
    elif what == 'not utf-8':
        members.append((f'\udcff{name}', data))
    elif what == 'other content':
        if Image.open(io.BytesIO(data)).size == Image.open(io.BytesIO(members[other][1])).size:
            return None
        members[place] = name, members[other][1]
    elif what == 'empty':
        members[place] = name, b''
    with tarfile.open(file, 'w:gz' if what == 'gzip' else 'w') as archive:
        for each, content in members:
            info = tarfile.TarInfo(each)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return f'{name}: {what}'


@kind('.npz')
def other_arrays(rng, root, file):
    """An array is missing, has another shape, or values that none has."""
    with np.load(file) as stored:
        arrays = dict(stored)
    name = list(arrays)[int(rng.integers(4))]
    changes = (None, arrays[name][:-1], arrays[name].astype(np.float32) * np.nan, arrays[name].astype(object),
               arrays[name][..., None], arrays[name][:0], np.float64(5))
    change = changes[number := int(rng.integers(len(changes)))]
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change
    np.savez(file, **arrays)
    return f'{name}: change {number}'


def _load(file: Path) -> Any:
    return json.loads(file.read_text()) if file.suffix == '.json' else pickle.loads(file.read_bytes())


def _store(file: Path, content: Any) -> None:
    if file.suffix == '.json':
        file.write_text(json.dumps(content))
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))


def _places(content: Any, place: tuple = ()) -> list[tuple]:
    """The way to every value, of numbers in a list only some."""
    if isinstance(content, dict):
        return [found for key, each in content.items() for found in [(*place, key), *_places(each, (*place, key))]]
    if isinstance(content, list):
        return [found for key, each in enumerate(content) if key < 5 or not isinstance(each, (int, float))
                for found in [(*place, key), *_places(each, (*place, key))]]
    return []


def _at(content: Any, place: tuple) -> Any:
    for key in place:
        content = content[key]
    return content
