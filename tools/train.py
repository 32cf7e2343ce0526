"""Train from a config, with an exit status that tells whether it worked.

    python tools/train.py configs/dual_loop_tiny.py --work-dir work_dirs/tiny
    python tools/train.py configs/dual_loop_tiny.py --work-dir work_dirs/tiny --resume
    python tools/train.py configs/dual_loop_4b.py --deepspeed zero2 --cfg-options train_dataloader.batch_size=8

Hands over to the train command of XTuner in this process. `xtuner train` does the same with the same options, but
returns 0 even when training fails and knows no bare `--resume`.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

from mmengine.config import Config, DictAction

from dual_loop.checkpoints.files import check_whole
from dual_loop.datasets.quarantine import TooManyBadSamples
from dual_loop.engine import compat
from dual_loop.engine.ownership import WorkDirInUse
from dual_loop.engine.resume import latest_checkpoint
from dual_loop.stop import interruptible
from llava_sam2.paths import CannotWrite


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of a config that ships with xtuner')
    parser.add_argument('--work-dir', help='folder for checkpoints and logs (default: work_dirs/<name of config>)')
    parser.add_argument('--deepspeed', help='zero1, zero2, zero2_fp32, zero2_offload, or a DeepSpeed JSON file')
    parser.add_argument('--resume', nargs='?', const='latest', metavar='CHECKPOINT',
                        help='continue from a checkpoint; without a path, from the latest in the work dir')
    parser.add_argument('--seed', type=int)
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings to change, e.g. model.x.y=3')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args(argv)


def check_options(config: Path, options: list[str]) -> None:
    """Refuse misspelt options now. The training loop does so too, but a model and a data set have been built by then,
    and `--deepspeed` has dropped everything of `optim_wrapper` but the optimizer."""
    from dual_loop.engine.config_check import check_config_keys  # takes seconds, too long before --help

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    check_config_keys(cfg)


def xtuner_arguments(args: argparse.Namespace) -> list[str]:
    """The command line of xtuner's train command that means the same as `args`.

    Raises:
        FileNotFoundError: the config or the checkpoint to resume from does not exist.
        ValueError: nothing reads one of the `--cfg-options`.
    """
    from xtuner.configs import cfgs_name_path

    config = Path(args.config)
    if not config.is_file():
        if args.config not in cfgs_name_path:
            raise FileNotFoundError(f'There is no config file {args.config} (looked from {Path.cwd()}).')
        config = Path(cfgs_name_path[args.config])
    if args.cfg_options:
        check_options(config, args.cfg_options)
    arguments = [str(config), '--launcher', args.launcher, '--local_rank', str(args.local_rank)]
    if args.resume is not None:
        work_dir = args.work_dir or Config.fromfile(config).get('work_dir') or f'work_dirs/{config.stem}'
        checkpoint = latest_checkpoint(work_dir) if args.resume == 'latest' else Path(args.resume)
        check_whole(checkpoint)
        arguments += ['--resume', str(checkpoint)]
    for option, value in (('--work-dir', args.work_dir), ('--deepspeed', args.deepspeed), ('--seed', args.seed)):
        if value is not None:
            arguments += [option, str(value)]
    if args.cfg_options:
        arguments += ['--cfg-options', *args.cfg_options]
    return arguments


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    compat.require_xtuner()
    try:
        arguments = xtuner_arguments(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'train.py: {error}')
    try:
        compat.train_by_xtuner(arguments)
    except (CannotWrite, TooManyBadSamples, WorkDirInUse) as error:
        sys.exit(f'train.py: {error}')


if __name__ == '__main__':
    with interruptible():  # until the loop takes over, and after it
        main()
