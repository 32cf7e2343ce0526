"""``dual-loop check`` and ``tools/check_data.py``."""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from dual_loop_command.arguments import add_options, count
from dual_loop_command.command import Command

ABOUT = """Tell whether all data of a config are there and can be used, before a long run finds out.

    {command} configs/dual_loop_4b.py
    {command} configs/dual_loop_4b.py --samples 200

Looks at every source, also after a bad one. Ends with status 1 when something is wrong. The indexes made here are kept
for training.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', help='config file')
    parser.add_argument('--samples', type=count, default=3, metavar='N',
                        help='samples to decode per source, evenly spread (default: %(default)s)')
    add_options(parser, 'train_dataloader.dataset.datasets.0.data_root=/data/sav')


@contextmanager
def quiet() -> Iterator[None]:
    """The report says once what the data sets would also log."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def act(args: Namespace) -> int:
    from dual_loop.config_files import read_config
    from dual_loop.datasets.check import check

    cfg = read_config(args.config, args.cfg_options)
    if args.cfg_options:
        from dual_loop.engine.config_check import check_config_keys  # takes seconds

        check_config_keys(cfg)
    with quiet():
        problems = check(cfg, args.samples)
    for problem in problems:
        print(f'- {problem}')
    print(f'{len(problems)} problem{"s" * (len(problems) > 1)}' if problems else 'all right')
    return 1 if problems else 0


COMMAND = Command('check', ABOUT, add_arguments, act)
