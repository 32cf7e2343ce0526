"""``dual-loop check`` and ``tools/check_data.py``."""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dual_loop_command.arguments import add_options, count
from dual_loop_command.command import Command

ABOUT = """Tell whether all data of a config, or of a folder of your own, can be used, before a long run finds out.

    {command} configs/dual_loop_4b.py
    {command} configs/dual_loop_4b.py --samples 200
    {command} data/my_pictures

Looks at every source, also after a bad one. Ends with status 1 when something is wrong. The indexes made here are kept
for training. Of a folder (docs/custom_data.md says what lies in it) some objects are also drawn, on a page below
work_dirs/check.
"""
DRAWN = 8  # objects of a folder


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', metavar='CONFIG|FOLDER', help='config file, or a folder with images and masks')
    parser.add_argument('--samples', type=count, metavar='N',
                        help='samples to decode per source, evenly spread (default: 3, of a folder up to 500)')
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
    if Path(args.config).is_dir():
        return act_on_folder(args)
    if not Path(args.config).exists():
        raise FileNotFoundError(f'there is no config file and no folder of pictures {args.config}: it does not exist '
                                f'(looked from {Path.cwd()})')
    from dual_loop.config_files import read_config
    from dual_loop.datasets.check import check

    cfg = read_config(args.config, args.cfg_options)
    if args.cfg_options:
        from dual_loop.engine.config_check import check_config_keys  # takes seconds

        check_config_keys(cfg)
    with quiet():
        problems = check(cfg, args.samples or 3)
    return verdict(problems)


def act_on_folder(args: Namespace) -> int:
    from mmengine.config import Config

    from dual_loop.config_files import read_config
    from dual_loop.datasets.check_folder import check_folder
    from dual_loop.models import DualLoopModel, MaskLoop
    from dual_loop.visualization.browse import browse
    from llava_sam2.paths import CHECKOUT

    if args.cfg_options:
        raise ValueError(f'--cfg-options changes a config, and {args.config} is a folder: leave it out')
    folder = Path(args.config).resolve()
    with quiet():
        dataset, problems = check_folder(folder, args.samples)
        if dataset is not None:
            tiny = read_config(CHECKOUT / 'configs/dual_loop_tiny.py')
            mine = dict(type='FolderDataset', name='mine', data_root=str(folder), split='all', exclude_image_ids=(),
                        **tiny.sizes)
            model = dict(type=DualLoopModel, base=tiny.model.base, loops=[dict(type=MaskLoop)])
            shown = Config(dict(model=model, train_dataloader=dict(dataset=mine)))
            page, *_ = browse(shown, Path('work_dirs/check') / folder.name, count=DRAWN,
                              title=f'Objects of {folder.name}')
            print(f'  drawn     {page.absolute()}')
    return verdict(problems)


def verdict(problems: Sequence[str]) -> int:
    """Print what is wrong; the exit status."""
    for problem in problems:
        print(f'- {problem}')
    print(f'{len(problems)} problem{"s" * (len(problems) > 1)}' if problems else 'all right')
    return 1 if problems else 0


COMMAND = Command('check', ABOUT, add_arguments, act)
