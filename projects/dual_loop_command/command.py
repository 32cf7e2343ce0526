"""One command: its help, its arguments and what it does, under ``dual-loop`` and as a script of ``tools/``."""

import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dual_loop_command.environment import require_environment


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
    """

    name: str
    about: str
    add_arguments: Callable[[ArgumentParser], None]
    act: Callable[[Namespace], int]
    anywhere: bool = False

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

    def run_as(self, script: str, argv: Sequence[str] | None = None) -> int:
        """Parse the command line of a script of ``tools/``, act, and return the exit status."""
        parser = self.fill(ArgumentParser(prog=os.path.basename(script)), f'python {script}')
        args = parser.parse_args(argv)
        return act(os.path.basename(script).removesuffix('.py'), self, args)


def act(caller: str, command: Command, args: Namespace) -> int:
    """Run a command; what the user has to mend is one line after ``caller``, and status 1."""
    require_environment()
    from dual_loop.refusals import in_one_line

    args.caller = caller
    return in_one_line(caller, partial(command.act, args))
