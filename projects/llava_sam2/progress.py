"""A progress bar whose rate and time left are those of the last minute.

A mean over the whole run is wrong for long when work changes its pace: caches fill, archives differ in size, a disk
gets busy. Nothing but Python is needed, so that the installation has the bar too. In a terminal it is one line that
goes away at the end; elsewhere a log file should not fill with bars, so there is a line now and then.
"""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

WINDOW = 60.0  # seconds that rate and time left are taken from
AFTER = 1.0  # seconds before a bar appears: what is over at once needs none
EVERY_IN_TERMINAL, EVERY_ELSEWHERE = 0.2, 30.0  # seconds between two looks
_GRAIN = 0.25  # seconds that one point of the window stands for
_CELLS = 20
_Item = TypeVar('_Item')


class Progress:
    """Counts what is done of something and shows it on stderr; a context that wipes the bar at its end.

    Args:
        total: units in all, None if that is not known before.
        description: what is done.
        unit: of the count, in the plural; ``'B'`` shows bytes as MB.
        shown: False counts silently, as on ranks other than the first.
        file: to show it on; default stderr.
        clock: gives seconds.
    """

    def __init__(self, total: int | None, description: str, unit: str = 'items', shown: bool = True,
                 file: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.total, self.description, self.unit, self.shown = total, description, unit, shown
        self.done = 0
        self._file, self._clock = file or sys.stderr, clock
        self._terminal = self._file.isatty()
        self._every = EVERY_IN_TERMINAL if self._terminal else EVERY_ELSEWHERE
        self._begun = clock()
        self._next = self._begun + (AFTER if self._terminal else self._every)
        self._points: deque[tuple[float, int]] = deque([(self._begun, 0)])
        self._drawn = False

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """So many units more are done."""
        self.done += count
        self.look()

    def set(self, done: int) -> None:
        """So many units are done in all."""
        self.update(done - self.done)

    def look(self) -> None:
        """Show where it stands, if it is time to; waits in which nothing is finished may call it too."""
        now = self._clock()
        self._note(now)
        if self.shown and now >= self._next:
            self._next = now + self._every
            self._show(now)

    def close(self) -> None:
        """Wipe the bar in a terminal; elsewhere say that it is over, if it was ever mentioned."""
        if self._terminal:
            self.wipe()
        elif self._drawn:
            now = self._clock()
            self._write(f'{self.description}: {self._amount(self.done)} in {_span(now - self._begun)}\n')
        self._drawn = self.shown = False

    def wipe(self) -> None:
        """Make room in a terminal for something else; the next look shows the bar again."""
        if self._drawn and self._terminal:
            self._write('\x1b[K')
            self._drawn = False

    @property
    def rate(self) -> float:
        """Units a second in the last minute, or since the start; 0 if none."""
        return self._rate(self._clock())

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the last minute; None where nobody can tell."""
        rate = self.rate
        return None if self.total is None or not rate else max(0, self.total - self.done) / rate

    def _note(self, now: float) -> None:
        points = self._points
        if len(points) > 1 and now - points[-2][0] < _GRAIN:
            points.pop()
        if points[-1][1] != self.done:
            points.append((now, self.done))
        # The first point is the last one before the window. Two stay, so that slow work has a rate as well.
        while len(points) > 2 and points[1][0] <= now - WINDOW:
            points.popleft()

    def _rate(self, now: float) -> float:
        self._note(now)
        (start, before), later = self._points[0], now - WINDOW
        counted: float = self.done - before
        if len(self._points) > 1 and start < later < self._points[1][0]:
            # Where the count stood a minute ago, between two points.
            after, then = self._points[1]
            counted -= (then - before) * (later - start) / (after - start)
            start = later
        return counted / (now - start) if now > start else 0.0

    def _show(self, now: float) -> None:
        begin, rest = f'{self.description}: ', self._line(now)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            cells = min(_CELLS, width - len(begin) - len(rest) - 3)
            if self.total and cells > 3:  # the figures go first
                filled = int(cells * min(1.0, self.done / self.total))
                begin += f'[{"#" * filled}{"." * (cells - filled)}] '
            # The cursor goes back: a line of the log begins there and takes the place of the bar.
            self._write(f'{(begin + rest)[:width]}\x1b[K\r')
        else:
            self._write(f'{begin}{rest}\n')
        self._drawn = True

    def _line(self, now: float) -> str:
        rate = self._rate(now)
        if self.unit == 'B':
            pace = f'{self._amount(rate)}/s'
        elif rate >= 0.1 or not rate:
            pace = f'{rate:,.0f}/s' if rate >= 10 else f'{rate:.1f}/s'
        else:
            pace = f'{1 / rate:,.0f} s each'
        if not self.total:
            return f'{self._amount(self.done)}, {pace}'
        left = f'{_span((self.total - self.done) / rate)} left' if rate else 'time left unknown'
        done = self._amount(self.done).split()[0]
        return f'{min(1.0, self.done / self.total):.0%}, {done} of {self._amount(self.total)}, {pace}, {left}'

    def _amount(self, count: float) -> str:
        return f'{count / 1e6:,.1f} MB' if self.unit == 'B' else f'{count:,} {self.unit}'

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def each(items: Iterable[_Item], total: int | None, description: str, unit: str = 'items') -> Iterator[_Item]:
    """The items, counted on a bar as the caller comes back for the next one."""
    with Progress(total, description, unit) as progress:
        for item in items:
            yield item
            progress.update()


def _span(seconds: float) -> str:
    seconds = round(seconds)
    return f'{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}'
