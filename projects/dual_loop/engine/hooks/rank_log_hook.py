"""What each process has to say, in a file of its own; and where it hangs, when asked."""

import faulthandler
import logging
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankLogHook(Hook):
    """Write ``rankN.log`` beside the log of the run: messages, errors and crash traces of rank N.

    mmengine keeps the messages of rank 0 only. A crash in native code leaves its Python stack there; so does a rank
    that gets SIGUSR1, which shows where ranks wait for each other. Its process stands in the first line, since a signal
    to all processes of the name would end torchrun, which has the script among its arguments.
    """

    priority = 'VERY_HIGH'

    def __init__(self):
        self._file = None

    def before_run(self, runner) -> None:
        path = Path(runner.log_dir) / f'rank{get_rank()}.log'
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (stays open as long as the process)
        self._file.write(f'rank {get_rank()} is process {os.getpid()} on {socket.gethostname()}\n')
        self._file.flush()
        faulthandler.enable(self._file)
        faulthandler.register(signal.SIGUSR1, self._file)
        handler = logging.StreamHandler(self._file)
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
        MMLogger.get_current_instance().addHandler(handler)
        shown = sys.excepthook

        def excepthook(kind, error, stack):
            traceback.print_exception(kind, error, stack, file=self._file)
            shown(kind, error, stack)

        sys.excepthook = excepthook
