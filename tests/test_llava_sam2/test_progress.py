"""Rate and time left, with a clock that the tests turn."""

import io

import pytest

from llava_sam2.progress import Progress, each


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def started(clock):
    def start(total, file=None, unit='items'):
        return Progress(total, 'work', unit, file=file or io.StringIO(), clock=clock)

    return start


def work(progress, clock, seconds: float, each_second: int, step: float = 1.0) -> None:
    for _ in range(int(seconds / step)):
        clock.now += step
        progress.update(int(each_second * step))


def test_time_left_is_that_of_the_last_minute(started, clock):
    progress = started(10_000)
    work(progress, clock, 600, 1)
    assert progress.rate == pytest.approx(1) and progress.seconds_left == pytest.approx(9400)
    work(progress, clock, 60, 40)
    # The mean over the run, 3 000 / 660 s, would say 1 540 s.
    assert progress.done == 3000 and progress.rate == pytest.approx(40)
    assert progress.seconds_left == pytest.approx(7000 / 40)


def test_half_a_window_counts_half(started, clock):
    progress = started(10_000)
    work(progress, clock, 300, 10)
    work(progress, clock, 30, 30)
    assert progress.rate == pytest.approx((30 * 10 + 30 * 30) / 60)


def test_before_a_minute_is_over_it_is_since_the_start(started, clock):
    progress = started(100)
    assert progress.seconds_left is None
    work(progress, clock, 20, 2)
    assert progress.rate == pytest.approx(2) and progress.seconds_left == pytest.approx(30)


def test_fast_work_keeps_few_points(started, clock):
    progress = started(None)
    work(progress, clock, 90, 1000, step=0.01)
    assert progress.rate == pytest.approx(1000, rel=0.01)
    assert len(progress._points) < 400


def test_slow_work_has_a_rate(started, clock):
    progress = started(10)
    for _ in range(3):
        clock.now += 150
        progress.update()
    assert progress.seconds_left == pytest.approx(7 * 150)


def test_a_stall_shows(started, clock):
    progress = started(1000)
    work(progress, clock, 100, 5)
    clock.now += 30
    assert progress.rate == pytest.approx(2.5), 'half of the last minute'
    before = progress.seconds_left
    clock.now += 300
    assert progress.seconds_left > 3 * before


def test_elsewhere_a_line_now_and_then(started, clock):
    log = io.StringIO()
    with started(1000, log) as progress:
        work(progress, clock, 90, 10)
        lines = log.getvalue().splitlines()
        assert len(lines) == 3 and '\r' not in log.getvalue() and '\x1b' not in log.getvalue()
        assert lines[-1] == 'work: 90%, 900 of 1,000 items, 10/s, 0:00:10 left'
    assert log.getvalue().splitlines()[3:] == ['work: 900 items in 0:01:30']


def test_short_work_says_nothing_elsewhere(started, clock):
    log = io.StringIO()
    with started(10, log) as progress:
        work(progress, clock, 10, 1)
    assert log.getvalue() == ''


def test_a_terminal_has_one_line_that_goes_away(started, clock, monkeypatch):
    monkeypatch.setenv('COLUMNS', '61')
    terminal = Terminal()
    with started(100, terminal) as progress:
        progress.update()
        assert terminal.getvalue() == '', 'what is over at once needs no bar'
        work(progress, clock, 20, 2)
        shown = terminal.getvalue().split('\x1b[K\r')
        assert '\n' not in terminal.getvalue() and len(shown) > 10
        assert shown[-2] == 'work: [####......] 41%, 41 of 100 items, 2.0/s, 0:00:29 left' and len(shown[-2]) == 60
    assert terminal.getvalue().endswith('\r\x1b[K')


def test_figures_go_before_the_bar(started, clock, monkeypatch):
    terminal = Terminal()
    for columns, expected in ((48, 'work: 41%, 41 of 100 items, 2.0/s, 0:00:29 left'), (20, 'work: 41%, 41 of 10')):
        monkeypatch.setenv('COLUMNS', str(columns))
        progress = started(100, terminal)
        work(progress, clock, 20, 2)
        progress.update()
        clock.now += 0.3
        progress.look()
        assert terminal.getvalue().split('\x1b[K\r')[-2] == expected


def test_bytes_and_unknown_totals(started, clock):
    log = io.StringIO()
    progress = started(8_000_000_000, log, 'B')
    work(progress, clock, 30, 100_000_000)
    assert log.getvalue() == 'work: 38%, 3,000.0 of 8,000.0 MB, 100.0 MB/s, 0:00:50 left\n'
    log = io.StringIO()
    work(started(None, log), clock, 30, 3)
    assert log.getvalue() == 'work: 90 items, 3.0/s\n'


def test_silent_ranks_count_and_say_nothing(clock):
    log = io.StringIO()
    with Progress(10, 'work', shown=False, file=log, clock=clock) as progress:
        work(progress, clock, 100, 1)
    assert log.getvalue() == '' and progress.done == 100


def test_each_gives_the_items(capsys):
    assert list(each('abc', 3, 'letters')) == ['a', 'b', 'c']
    assert capsys.readouterr().err == ''
