"""Start a tool in several processes of this machine, as torchrun does, and end with a status that tells how it went.

    python tools/launch.py --standalone --nproc_per_node 2 tools/train.py configs/dual_loop_tiny.py --launcher pytorch

Takes the arguments of torchrun. SIGTERM and SIGINT go on to the processes, which may take the time that they need:
where one of them ends with 143 or 130 because it was asked to, so does this one. A second signal ends all at once.
torchrun itself kills what still saves after 30 seconds, says 1 whatever came of it, and does not survive two Ctrl-C.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import logging
import os
import signal
import time
from contextlib import suppress

import psutil
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from dual_loop.stop import ECHO, SIGNALS


class Forward:
    """Sends the first signal on to all processes; a later one kills them, with all that they started."""

    def __init__(self):
        self.since: float | None = None

    def __call__(self, number: int, frame) -> None:
        processes = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
        if not processes:  # not started yet, or gone
            sys.exit(128 + number)
        if self.since is None:
            self.since = time.monotonic()
            for process in processes:
                process.send_signal(number)
        elif time.monotonic() - self.since > ECHO:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # torchrun gives each a group of its own


def main(argv: list[str]) -> int:
    """Run torchrun in this process; returns the exit status."""
    forward = Forward()
    for number in SIGNALS:
        signal.signal(number, forward)
    # What asks ranks where they are would end this process, which has the name of their script among its arguments.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    logging.disable()  # torchrun's reports would follow the line that a failed tool says
    try:
        torchrun(['--signals-to-handle', 'SIGQUIT', *argv])
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        failures = sorted(error.failures.items())
        mistakes = any(failure.exitcode > 0 for _, failure in failures)
        for rank, failure in failures:
            # torchrun ends the others of a process that has failed and said why.
            if failure.exitcode < 0 and not (mistakes and failure.exitcode == -signal.SIGTERM):
                print(f'launch: process {rank} was ended by {signal.Signals(-failure.exitcode).name}', file=sys.stderr)
        return max(1, *(failure.exitcode for _, failure in failures))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
