"""Install the packages of a lock file into the environment of this Python, with a progress bar.

    python tools/install_packages.py requirements/lock.txt

tools/install.sh calls it. It runs pip with --no-deps and counts what pip has fetched and what has arrived; the exit
status is pip's, whose errors are shown. Needs nothing but Python.
"""

import argparse
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))

from llava_sam2.progress import Progress

_LOOK = 0.5  # seconds between two looks at the folder


def packages_of(lock: Path) -> int:
    """How many lines of a lock file name a package."""
    return sum('==' in line and not line.startswith('#') for line in lock.read_text().splitlines())


def install(command: Sequence[str], packages: int, folder: Path, progress: Progress) -> int:
    """Run pip and return its status; each package counts once when it is fetched and once when it is there.

    Args:
        command: pip with its arguments, without ``--quiet``.
        packages: that it will install.
        folder: they go to, which may have others already.
        progress: of twice as many units.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    before, fetched = _installed(folder), 0
    try:
        while (line := _next(lines)) is not None:
            fetched = min(packages, fetched + line.startswith(('Collecting ', 'Requirement already satisfied: ')))
            progress.set(fetched + min(packages, _installed(folder) - before))
        if (status := process.wait()) == 0:
            progress.set(2 * packages)
        return status
    finally:  # pip does not outlive it
        process.terminate()
        process.wait()


def _next(lines: queue.Queue[str | None]) -> str | None:
    try:
        return lines.get(timeout=_LOOK)
    except queue.Empty:
        return ''


def _installed(folder: Path) -> int:
    return sum(1 for _ in folder.glob('*.dist-info/RECORD'))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('lock', type=Path, help='lines of NAME==VERSION, every dependency among them')
    args = parser.parse_args(argv)
    if not args.lock.is_file():
        print(f'install_packages: {args.lock} is not there', file=sys.stderr)
        return 1
    packages = packages_of(args.lock)
    command = [sys.executable, '-m', 'pip', 'install', '--disable-pip-version-check', '--progress-bar', 'off',
               '--no-deps', '-r', str(args.lock)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Progress(2 * packages, f'fetching and installing {packages} packages', 'steps') as progress:
            return install(command, packages, Path(sysconfig.get_path('purelib')), progress)
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
