"""One command: its help, its arguments and what it does, under ``dual-loop`` and as a script of ``tools/``."""

import os
import re
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from dual_loop_command.environment import require_environment


class Parser(ArgumentParser):
    """Says what is wrong with a command line in one line, and where the rest stands.

    What begins like a negative number, such as the box ``-5,0,20,20``, is a value.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._negative_number_matcher = re.compile(r'-[\d.,-]+$')  # of argparse, which knows single numbers only

    def parse_known_args(self, args=None, namespace=None):
        given = sys.argv[1:] if args is None else args
        if any(not each or re.fullmatch('--[a-z-]+=', each) for each in given):  # '' would be the current folder
            self.error('an argument is empty: is a variable on the command line not set?')
        return super().parse_known_args(args, namespace)

    def _print_message(self, message: str, file=None) -> None:
        """Where there is no room for it, argparse would be silent."""
        file = file or sys.stderr
        try:
            file.write(message)
            file.flush()
        except OSError as error:
            raise SystemExit(f'{self.prog}: {error}') from error

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message} (--help says more)\n')


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: after ``dual-loop``.
        about: its help: one sentence, examples in which ``{command}`` stands for how it is called, and the rest.
        add_arguments: to a parser.
        act: with the arguments, ``caller`` among them, which stands before messages; returns the exit status. It
            imports what it needs.
        anywhere: whether it also acts outside the environment of the project.
        takes_signals: whether it handles signals by itself, and ends with 143 only where it has saved its state.
    """

    name: str
    about: str
    add_arguments: Callable[[ArgumentParser], None]
    act: Callable[[Namespace], int]
    anywhere: bool = False
    takes_signals: bool = False

    @property
    def summary(self) -> str:
        """The first sentence of its help."""
        return self.about.strip().partition('\n')[0]

    def fill(self, parser: ArgumentParser, called: str) -> ArgumentParser:
        """Give a parser the help and the arguments; ``called`` stands in the examples."""
        parser.description = self.about.replace('{command}', called)
        parser.formatter_class = RawDescriptionHelpFormatter
        self.add_arguments(parser)
        return parser

    def main_of(self, script: str, argv: Sequence[str] | None = None) -> int:
        """Parse the command line of a script of ``tools/``, act, and return the exit status."""
        return act(_name(script), self, self._parse(script, argv))

    def run_script(self, script: str) -> NoReturn:
        """The same as the whole of a process."""
        run_process(_name(script), self, self._parse(script, None))

    def _parse(self, script: str, argv: Sequence[str] | None) -> Namespace:
        return self.fill(Parser(prog=os.path.basename(script)), f'python {script}').parse_args(argv)


def _name(script: str) -> str:
    return os.path.basename(script).removesuffix('.py')


def run_process(caller: str, command: Command, args: Namespace) -> NoReturn:
    """Act and exit with the status; signals end the process with one line."""
    if command.anywhere:
        try:
            raise SystemExit(_told(command, args))
        except OSError as error:
            raise SystemExit(f'{caller}: {error}') from error
    require_environment()
    from dual_loop.stop import interruptible, run_command

    if command.takes_signals:
        with interruptible():
            raise SystemExit(act(caller, command, args))
    run_command(partial(act, caller, command, args), caller)


def act(caller: str, command: Command, args: Namespace) -> int:
    """Run a command; what the user has to mend is one line after ``caller``, and status 1."""
    require_environment()
    from dual_loop.refusals import in_one_line

    args.caller = caller
    return in_one_line(caller, partial(_told, command, args))


def _told(command: Command, args: Namespace) -> int:
    status = command.act(args)
    print(end='', flush=True)  # a disk that is full says so here
    return status
