"""The command ``dual-loop``: all commands under one name.

    dual-loop segment photo.jpg "the red ring"        what a model finds by your words
    dual-loop describe photo.jpg --box 40,30,120,90   what it says about a region
    dual-loop demo                                    both in a browser
    dual-loop train configs/dual_loop_tiny.py         train; --help after a command shows its options and examples
"""
import signal

from dual_loop_command.environment import require_python

require_python()

from argparse import ArgumentParser, RawDescriptionHelpFormatter  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from dual_loop_command import (  # noqa: E402
    browse,
    check,
    compare,
    demo,
    demo_data,
    describe,
    env,
    estimate,
    evaluate,
    export,
    init,
    report,
    segment,
    train,
)
from dual_loop_command.command import Command, Parser, run_process  # noqa: E402
from dual_loop_command.output import bear_closed_pipes  # noqa: E402

COMMANDS: tuple[Command, ...] = (
    segment.COMMAND, describe.COMMAND, demo.COMMAND, train.COMMAND, estimate.COMMAND, evaluate.COMMAND, export.COMMAND,
    report.COMMAND, compare.COMMAND, check.COMMAND, init.COMMAND, browse.COMMAND, demo_data.COMMAND, env.COMMAND)


def parser() -> ArgumentParser:
    """Of the command with all that stand below it."""
    result = Parser('dual-loop', description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    below = result.add_subparsers(title='commands', dest='command', metavar='COMMAND', required=True)
    for command in COMMANDS:
        each = below.add_parser(command.name, help=command.summary)
        command.fill(each, each.prog).set_defaults(command=command)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says and exit with its status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while imports take their seconds
    bear_closed_pipes()
    args = parser().parse_args(argv)
    command = args.__dict__.pop('command')
    run_process(f'dual-loop {command.name}', command, args)
