"""Imported first by every script of ``tools/``, when it runs as one.

Ctrl-C while the imports take their seconds ends it without a traceback, and so does another environment; a reader that
went away, as `head` does, ends nothing.
"""
import signal

from dual_loop_command.environment import require_environment
from dual_loop_command.output import bear_closed_pipes

signal.signal(signal.SIGINT, signal.SIG_DFL)
require_environment()
bear_closed_pipes()
