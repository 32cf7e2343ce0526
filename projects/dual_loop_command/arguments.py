"""Arguments that several commands have. Names are those of the code that acts on them, which a test compares."""

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

#: ``dual_loop.checkpoints.trained_model.EXPORTED_DTYPES`` and ``EXPORTED_PARTS``.
DTYPES = ('bf16', 'fp32')
PARTS = ('full', 'lora', 'sam2', 'lora+sam2', 'proj')
#: ``dual_loop.datasets.workers.LOADER_TIMEOUT``, in seconds.
LOADER_TIMEOUT = 600
#: An answer that goes on for longer does not end by itself.
MOST_TOKENS = 8192
MOST = 10**9  # of anything


def count(text: str) -> int:
    """A whole number from 1, as an argument."""
    return _whole(text, 1)


def tokens(text: str) -> int:
    """Of an answer at most, as an argument."""
    return _whole(text, 1, MOST_TOKENS)


def count_or_none(text: str) -> int:
    """A whole number from 0, as an argument."""
    return _whole(text, 0)


def _whole(text: str, least: int, most: int = MOST) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f'{text!r} is not a whole number from {least} on')
    if int(text) > most:
        raise ArgumentTypeError(f'{text} is more than {most}, the most that is taken')
    return int(text)


def setting(text: str) -> str:
    """``KEY=VALUE``, as an argument."""
    if not text.partition('=')[0] or '=' not in text:
        raise ArgumentTypeError(f'{text!r} is not KEY=VALUE: write for example model.tau=0.5, without spaces')
    return text


def add_options(parser: ArgumentParser, example: str = 'model.tau=0.5') -> None:
    """``--cfg-options``, which ``dual_loop.config_files`` reads."""
    parser.add_argument('--cfg-options', nargs='+', type=setting, default=[], metavar='KEY=VALUE',
                        help=f'settings to change, such as {example}')


def add_answering_model(parser: ArgumentParser) -> None:
    """The model that is asked about one picture, and where the answer goes."""
    add_model(parser)
    parser.add_argument('--out', type=Path, metavar='PNG', help='picture to write, with the JSON beside it (default: '
                        'work_dirs/try/<name of photo>_<command>.png)')


def add_model(parser: ArgumentParser) -> None:
    """The model that is asked about pictures."""
    parser.add_argument('--model', type=Path, metavar='FOLDER',
                        help='an exported or released model (default: assets/tiny, which knows coloured shapes only)')
    parser.add_argument('--dtype', choices=DTYPES, help='of the weights (default: what the model states)')
    parser.add_argument('--max-new-tokens', type=tokens, default=256, metavar='N',
                        help='of an answer (default: %(default)s)')
