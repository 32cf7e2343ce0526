"""Imported first by every script of ``tools/``, when it runs as one.

Ctrl-C while the imports take their seconds ends it without a traceback, and so does another environment.
"""
import signal

from dual_loop_command.environment import require_environment

signal.signal(signal.SIGINT, signal.SIG_DFL)
require_environment()
