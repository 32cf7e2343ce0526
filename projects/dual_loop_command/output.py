"""What is printed when nobody reads it any more, as after ``| head -1``: it is left unsaid, and the work goes on.

Any Python 3 can read this file, as dual_loop_command.environment.
"""
import os
import sys


class Output:
    """A text stream that goes to the null device from the first text on that its file does not take.

    A closed pipe is no error; anything else, such as a full disk, is one that names the stream.
    """

    def __init__(self, stream, name):
        self._stream, self._name = stream, name

    def __getattr__(self, attribute):
        return getattr(self._stream, attribute)

    def write(self, text):
        self._try(self._stream.write, text)
        return len(text)

    def writelines(self, lines):
        self._try(self._stream.writelines, lines)

    def flush(self):
        self._try(self._stream.flush)

    def _try(self, act, *arguments):
        try:
            act(*arguments)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)  # takes what is still in the buffer
            os.dup2(null, self._stream.fileno())
            os.close(null)
            if not isinstance(error, BrokenPipeError):
                raise OSError(self._name + ': ' + error.strerror) from error  # a sentence for the user


def bear_closed_pipes():
    """Let this process print on as if somebody read it."""
    for name, shown in (('stdout', 'standard output'), ('stderr', 'standard error')):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Output):
            setattr(sys, name, Output(stream, shown))
