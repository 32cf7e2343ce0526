"""Tell whether all data of a config are there and can be used, before a long run finds out.

    python tools/check_data.py configs/dual_loop_4b.py
    python tools/check_data.py configs/dual_loop_4b.py --samples 200

Looks at every source, also after a bad one. Ends with status 1 when something is wrong. The indexes made here are kept
for training.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from dual_loop.datasets.check import check
from dual_loop.stop import run_command


@contextmanager
def quiet() -> Iterator[None]:
    """The report says once what the data sets would also log."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--samples', type=int, default=3, metavar='N',
                        help='samples to decode per source, evenly spread (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings to change, e.g. train_dataloader.dataset.datasets.0.data_root=/data/sav')
    args = parser.parse_args(argv)
    if args.samples < 1:
        parser.error('--samples must be at least 1')
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if not Path(args.config).is_file():
            raise FileNotFoundError(f'there is no config file {args.config}')
        cfg = Config.fromfile(args.config)
        if args.cfg_options:
            from dual_loop.engine.config_check import check_config_keys  # takes seconds

            cfg.merge_from_dict(args.cfg_options)
            check_config_keys(cfg)
        with quiet():
            problems = check(cfg, args.samples)
    except (OSError, ValueError) as error:
        print(f'check_data: {error}', file=sys.stderr)
        return 1
    for problem in problems:
        print(f'- {problem}')
    print(f'{len(problems)} problem{"s" * (len(problems) > 1)}' if problems else 'all right')
    return 1 if problems else 0


if __name__ == '__main__':
    run_command(main)
