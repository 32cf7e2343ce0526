"""What a run logged, through all its starts: every start, a resumption too, writes a dated folder in the work_dir.

A start that resumes takes the steps after its checkpoint again: what older folders have of them is replaced. A start
that begins anew replaces all that stands there.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .summary import STEP_KEYS

SCALARS, CONFIG, FACTS = 'vis_data/scalars.json', 'vis_data/config.py', 'run.json'


class NoRun(ValueError):
    """A folder that holds no log of a run, or one that cannot be read."""


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
        folder: its dated folder.
        step: after which it began; its own records are of later steps, and of step 0.
        records: that stand in its log.
        facts: of its ``run.json``, which ReportHook writes (``engine.run_facts``); empty without one.
    """

    folder: Path
    step: int
    records: list[dict]
    facts: dict[str, Any] = field(default_factory=dict)


def read_starts(work_dir: Path, notes: list[str] | None = None) -> list[Start]:
    """The starts that make up the latest run of a work_dir, in order; those that logged nothing are passed over.

    Args:
        work_dir: of the run, or one of its dated folders.
        notes: gets a line for each log whose last line is cut off, which is left out.

    Raises:
        NoRun: there is no log, or nothing in it, or a damaged one.
    """
    if not work_dir.is_dir():
        raise NoRun(f'{work_dir} is no run: ' + ('it is a file' if work_dir.exists() else 'it does not exist')
                    + '; give the work_dir of a training run')
    files = sorted([*work_dir.glob(SCALARS), *work_dir.glob(f'*/{SCALARS}')])
    if not files:
        raise NoRun(f'{work_dir} is no run: there is no {SCALARS} in it or in a folder of it; give the work_dir of a '
                    'training run whose visualizer.vis_backends has LocalVisBackend')
    starts: list[Start] = []
    for file in files:
        if records := read_scalars(file, notes):
            folder = file.parents[1]
            facts = read_facts(folder)
            # Without the facts: just before the first record.
            step = facts.get('step', max(0, min(map(step_of, records)) - 1))
            starts = [*starts, Start(folder, step, records, facts)] if step else [Start(folder, 0, records, facts)]
    if not starts:
        raise NoRun(f'{work_dir}: nothing has been logged yet ({files[-1]} is empty); try again after the first '
                    'default_hooks.logger.interval steps')
    return starts


def joined(starts: Iterable[Start]) -> list[dict]:
    """The records of a run through its starts; of steps that were taken again those of the last time."""
    records: list[dict] = []
    for start in starts:
        kept = [record for record in records if step_of(record) <= start.step] if start.step else []
        records = kept + [record for record in start.records if step_of(record) > start.step or not start.step]
    return records


def read_scalars(path: str | Path, notes: list[str] | None = None) -> list[dict]:
    """The records of an MMEngine ``vis_data/scalars.json``: one JSON object a line, each with its step.

    A last line that is cut off, as by the end of a process, is left out, with a line in ``notes``.

    Raises:
        NoRun: another line is no record.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise NoRun(f'{path} is no text ({error.reason} at byte {error.start}): it is damaged, remove it') from error
    records = []
    lines = text.split('\n')
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                if notes is not None:
                    notes.append(f'{path}: its last line is cut off and left out')
                continue
            raise NoRun(f'{path}, line {number} is not JSON ({error.msg}): delete that line') from error
        if not isinstance(record, dict) or not isinstance(step_of(record), int):
            raise NoRun(f'{path}, line {number} is no record with a step: delete that line')
        records.append(record)
    return records


def step_of(record: dict) -> int | None:
    """The optimizer step of a record."""
    return next((record[key] for key in STEP_KEYS if key in record), None)


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``run.json`` of a start says.

    Raises:
        NoRun: it is damaged.
    """
    file = folder / FACTS
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise NoRun(f'{file} is no JSON: it is damaged, remove it') from error
