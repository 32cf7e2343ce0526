"""Indexes on disk: made once, found again as long as the data they list have not changed."""

import fnmatch
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from mmengine.logging import print_log

from llava_sam2.claims import Owner, alone
from llava_sam2.paths import keep_on_disk, resolve, writing

from .index import Table, digest

INDEX_DIR = 'work_dirs/indexes'
#: Overrules the argument ``index_dir`` of every data set, for example with a fast local disk.
VARIABLE = 'DUAL_LOOP_INDEX_DIR'
# Of the code that every index is made with: this module, index, indexed, row_checks, exclusion, texts, json_files,
# parallel, lengths, masks, images and quarantine. A new number makes all indexes anew; give one when a change there
# changes what indexes hold. A data set's own code need not be counted: its files are part of the fingerprint of its
# indexes.
_VERSION = 2
_STATE = 'index.json'
_OF_OTHER_SYSTEMS = {'thumbs.db', 'ehthumbs.db', 'desktop.ini', '__macosx', '@eadir', '$recycle.bin',
                     'system volume information', 'lost+found'}


@dataclass(frozen=True)
class IndexSource:
    """What an index is made from; when nothing of it has changed, the stored index holds.

    Args:
        files: their size and time of change decide.
        folders: the time of change and the number of entries of every directory below them decide. A file that is
            rewritten in place is not noticed, since that would need a look at each of millions of files.
        arguments: plain values that decide which rows there are.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredIndex:
    """Tables by name, and a digest of their content that says whether two runs read the same list."""

    tables: dict[str, Table]
    digest: str


def load_or_build(name: str, source: IndexSource, build: Callable[[], dict[str, Table]],
                  index_dir: str | Path = INDEX_DIR) -> StoredIndex:
    """Open the stored index of ``source``, or build and store it.

    Of several processes one builds and the others wait. The index appears whole or not at all.

    Args:
        name: of the data set; part of the file name.
        source: what the index is made from.
        build: gives the tables by name.
        index_dir: folder of the indexes, relative paths against the checkout; see also ``VARIABLE``.

    Raises:
        CannotWrite: ``index_dir`` takes no more, or cannot be written.
    """
    root = resolve(os.environ.get(VARIABLE) or index_dir)
    arguments = json.loads(json.dumps(source.arguments, default=str, sort_keys=True))
    key = sha256(json.dumps([arguments, [str(path) for path in (*source.files, *source.folders)]]).encode())
    folder = root / f'{name}-{key.hexdigest()[:16]}'
    if stored := _open(folder, source):  # without the claim, so that a folder that can only be read will do
        return stored

    def told(owner: Owner) -> None:
        print_log(f'waiting for {owner}, which makes the index of {name} (or ended on another host: remove {claim})',
                  'current', logging.WARNING)

    claim = folder.with_suffix('.lock')
    with writing(f'the index of {name}', root, 'Make room there, or set index_dir or the environment variable '
                 f'{VARIABLE} to a folder that can be written'):
        root.mkdir(parents=True, exist_ok=True)
        with alone(claim, told):
            return _open(folder, source) or _make(folder, name, source, arguments, build)


def walk(root: Path) -> Iterator[tuple[str, list[str], int]]:
    """Every directory below ``root`` in order: its path, the sorted names of its files, its number of entries.

    Symbolic links are followed, but no directory is entered twice. What other systems leave in folders, and what is
    hidden, counts as an entry and is otherwise passed over, see ``is_hidden``.

    Raises:
        PermissionError: a directory cannot be listed.
    """
    def refuse(error: OSError) -> None:
        raise unreadable(error) if isinstance(error, PermissionError) else error

    entered: set[tuple[int, int]] = set()
    _is_new(str(root), entered)
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        count = len(folders) + len(files)
        folders[:] = sorted(each for each in folders
                            if not is_hidden(each) and _is_new(os.path.join(folder, each), entered))
        yield folder, sorted(each for each in files if not is_hidden(each)), count


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the data: its name begins with a dot (``.DS_Store``, ``._sa_1.json``, a
    trash) or is one that other systems give (``Thumbs.db``, ``__MACOSX``)."""
    return name.startswith('.') or name.lower() in _OF_OTHER_SYSTEMS


def unreadable(error: OSError) -> OSError:
    """The same error with what to do."""
    return type(error)(error.errno, f'{error.strerror}: make it readable for this user', error.filename)


def find_files(root: Path, pattern: str) -> list[str]:
    """Paths of the files below ``root`` (symbolic links included) whose name fits ``pattern``: relative, sorted.

    Hidden files (``is_hidden``) are none. A name that is not UTF-8 is among them and cannot stand in an index: a data
    set calls its method ``find_files``, which writes such files down.
    """
    found = []
    for folder, names, _ in walk(root):
        prefix = '' if folder == str(root) else f'{os.path.relpath(folder, root)}/'
        found += [prefix + name for name in fnmatch.filter(names, pattern)]
    found.sort()
    return found


def _is_new(folder: str, entered: set[tuple[int, int]]) -> bool:
    status = os.stat(folder)
    identity = status.st_dev, status.st_ino
    is_new = identity not in entered
    entered.add(identity)
    return is_new


def _open(folder: Path, source: IndexSource) -> StoredIndex | None:
    """The stored index, or None if there is none or the data have changed."""
    try:
        state = json.loads((folder / _STATE).read_bytes())
        if state['version'] != _VERSION or _files(source) != state['files'] or \
                {path: _directory(path) for path in state['directories']} != state['directories']:
            return None
        return StoredIndex({name: Table.open(folder / f'{name}.arrow') for name in state['tables']}, state['digest'])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:  # Arrow's are ValueErrors
        print_log(f'{folder} is damaged and is made anew ({error})', 'current', logging.WARNING)
        return None


def _make(folder: Path, name: str, source: IndexSource, arguments: dict, build: Callable) -> StoredIndex:
    started = time.monotonic()
    # Looked at before the index is made: what changes meanwhile is noticed next time.
    state: dict = dict(version=_VERSION, arguments=arguments, files=_files(source),
                       directories={path: _directory(path) for root in source.folders for path, _, _ in walk(root)})
    tables = build()
    rows = {each: len(table) for each, table in tables.items()}
    state |= dict(tables=rows, digest=digest(tables))
    unfinished, old = folder.with_suffix('.unfinished'), folder.with_suffix('.old')
    for leftover in (unfinished, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        unfinished.mkdir()
        for each, table in tables.items():
            table.write(unfinished / f'{each}.arrow')
            keep_on_disk(unfinished / f'{each}.arrow')
        (unfinished / _STATE).write_text(json.dumps(state, indent=1))
        keep_on_disk(unfinished / _STATE)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    del tables, table
    pa.default_memory_pool().release_unused()  # it would keep what the tables took
    if (seconds := time.monotonic() - started) > 1:
        print_log(f'{name}: index of {rows["samples"]} samples made in {seconds:.1f} s, kept in {folder}', 'current')
    return StoredIndex({each: Table.open(folder / f'{each}.arrow') for each in rows}, state['digest'])


def _files(source: IndexSource) -> dict[str, list[int]]:
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in source.files}


def _directory(path: str) -> list[int] | None:
    """Time of change and number of entries; None if it has gone."""
    try:
        return [os.stat(path).st_mtime_ns, len(os.listdir(path))]
    except (FileNotFoundError, NotADirectoryError):
        return None
