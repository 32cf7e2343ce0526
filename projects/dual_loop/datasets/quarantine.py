"""Bad samples: written down, counted, and a clear stop when there are too many."""

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mmengine.logging import print_log
from torch.utils.data import Dataset

from llava_sam2.paths import writing

from .texts import printable

FILE_NAME = 'bad_samples.jsonl'
MAX_SHARE = 0.01
MIN_ALLOWED = 10
MAX_IN_A_ROW = 100
MAX_LOGGED = 100


class BadSample(ValueError):
    """One sample cannot be used. Readers raise it; ``GroundedDataset`` answers with a substitute.

    Args:
        reason: what is wrong, one sentence.
        path: the file it is wrong in, if it is another one than the sample's own.
    """

    def __init__(self, reason: str, path: str | Path | None = None):
        super().__init__(reason)
        self.reason = reason
        self.path = path


class TooManyBadSamples(RuntimeError):
    """The data set is broken beyond what a substitute may hide; training stops."""


class Quarantine:
    """The bad samples of one data set.

    A sample counts once, however often it is met. Training stops when more than ``max(10, 1 % of num_samples)``
    distinct samples or all of them are bad, or when 100 attempts in a row fail in one process. Once ``attach`` has
    named a file, the count is that of the file, which all workers and ranks share, so the limit holds for them together
    and over a resume. Whoever repairs the data deletes the file.

    Args:
        source: name of the data set, as in the field ``source`` of its samples.
        num_samples: number of its distinct samples; set once the index is known.
        root: its folder.
    """

    def __init__(self, source: str, num_samples: int = 0, root: Path | None = None):
        self.source = source
        self.root = root
        self.num_samples = num_samples
        self.file: Path | None = None
        self.in_a_row = 0
        self._entries: dict[str, dict] = {}
        self._written: set[str] = set()
        self._read_up_to = 0
        self._mute = False

    def attach(self, file: str | Path) -> None:
        """Append from now on to ``file`` (.jsonl), beginning with what was recorded before.

        Raises:
            CannotWrite: its folder cannot be written.
        """
        self.file = Path(file)
        with writing('the list of bad samples', self.file, 'Choose another work_dir'):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.open('ab').close()
        self._written = set()
        self._read_up_to = 0
        self._exchange()

    @property
    def entries(self) -> list[dict[str, str]]:
        """The distinct bad samples (source, sample_id, path, reason); with a file, those of all workers and ranks."""
        if self.file is not None:
            self._exchange()
        return list(self._entries.values())

    @property
    def count(self) -> int:
        return len(self.entries)

    def good(self) -> None:
        """A sample was read: a row of failures ends here."""
        self.in_a_row = 0

    def note(self, sample_id: str, path: str | Path, reason: str) -> None:
        """Write down one bad sample. While an index is made, when the limit is not known yet; else ``record``."""
        sample_id, path, reason = (printable(each) for each in (sample_id, path, reason))
        if sample_id in self._entries:
            return
        self._entries[sample_id] = dict(source=self.source, sample_id=sample_id, path=path, reason=reason)
        if len(self._entries) <= MAX_LOGGED:
            print_log(f'bad sample {sample_id} of {self.source} is not used: {reason} ({path})', 'current',
                      logging.WARNING)
        if self.file is not None:
            self._exchange()

    def record(self, sample_id: str, path: str | Path, reason: str) -> None:
        """Write down one bad sample that was met in training or evaluation.

        Raises:
            TooManyBadSamples: above one of the limits.
        """
        self.note(sample_id, path, reason)
        self.in_a_row += 1
        if self.in_a_row >= MAX_IN_A_ROW:
            raise TooManyBadSamples(f'{self.in_a_row} samples in a row of {self.source} could not be read, the last '
                                    f'one is {path}: {reason}. {self._remedy()}')
        self.check()

    def check(self) -> None:
        """Raise ``TooManyBadSamples`` when more distinct samples are bad than the share that may be, or all are."""
        allowed = max(MIN_ALLOWED, MAX_SHARE * self.num_samples)
        count = len(self._entries)
        if count > allowed or 0 < self.num_samples <= count:
            first = next(iter(self._entries.values()))
            limit = f'more than the {allowed:.0f} that may be' if count > allowed else 'so that nothing is left'
            raise TooManyBadSamples(
                f'{count} of {self.num_samples} samples of {self.source} are bad, {limit}; the first one is '
                f'{first["sample_id"]}, {first["path"]}: {first["reason"]}. {self._remedy()}')

    def _remedy(self) -> str:
        if self.file is None:
            return f'The log names up to {MAX_LOGGED} of them; repair or remove these files and start again.'
        return f'They are listed in {self.file}; repair or remove these files, delete the list and start again.'

    def _exchange(self) -> None:
        """Read what others appended, then append what they have not, in one piece.

        Two processes at once write into each other at worst where the file system has no locks: such a line counts for
        the process that wrote it alone, and so does one that a crash or a full disk has cut off.
        """
        try:
            with open(self.file, 'ab+', buffering=0) as stream:
                with suppress(OSError):  # no locks on this file system: see above
                    fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(self._read_up_to)
                lines = stream.read().split(b'\n')
                self._read_up_to = stream.tell() - len(lines[-1])  # the last one has no end, and may be half a line
                for line in lines:
                    entry = _entry(line)
                    if entry is not None and entry['source'] == self.source:
                        self._entries.setdefault(entry['sample_id'], entry)
                        self._written.add(entry['sample_id'])
                if fresh := [entry for sample_id, entry in self._entries.items() if sample_id not in self._written]:
                    text = ''.join(json.dumps(entry) + '\n' for entry in fresh).encode()
                    text = b'\n' * bool(lines[-1]) + text
                    while text:  # in one piece, unless the disk fills up
                        text = text[stream.write(text):]
                    self._written |= {entry['sample_id'] for entry in fresh}
        except OSError as error:
            if not self._mute:
                print_log(f'{self.file} cannot be written ({error.strerror or error}): this process keeps its bad '
                          'samples to itself, and counts only those', 'current', logging.WARNING)
            self._mute = True


def _entry(line: bytes) -> dict[str, str] | None:
    """The bad sample of a line; None if it is not whole."""
    try:
        entry = json.loads(line)
        return entry if {'source', 'sample_id', 'path', 'reason'} <= entry.keys() else None
    except (ValueError, AttributeError):
        return None


def quarantines(dataset: Dataset) -> Iterator[Quarantine]:
    """The quarantines of a data set, also inside torch's ``ConcatDataset``, ``Subset`` and the like."""
    if hasattr(dataset, 'quarantine'):
        yield dataset.quarantine
    for part in getattr(dataset, 'datasets', [dataset.dataset] if hasattr(dataset, 'dataset') else []):
        yield from quarantines(part)


def set_work_dir(dataset: Dataset, work_dir: str | Path) -> None:
    """Send the bad samples of ``dataset`` to ``work_dir``/bad_samples.jsonl. Call it before the first batch.

    Raises:
        ValueError: parts of it have one name and different folders, so that samples of one would be taken for those of
            the other.
    """
    roots: dict[str, Path | None] = {}
    for quarantine in quarantines(dataset):
        if roots.setdefault(quarantine.source, quarantine.root) != quarantine.root:
            raise ValueError(f'the data in {roots[quarantine.source]} and {quarantine.root} have the name '
                             f'{quarantine.source!r} in one loader: give one of the data sets another name=...')
        quarantine.attach(Path(work_dir) / FILE_NAME)
