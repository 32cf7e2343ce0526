"""``dual-loop train`` and ``tools/train.py``."""

from argparse import ArgumentParser, Namespace

from dual_loop_command.arguments import add_options
from dual_loop_command.command import Command

ABOUT = """Train from a config, with an exit status that tells whether it worked.

    {command} configs/dual_loop_tiny.py --work-dir work_dirs/tiny
    {command} configs/dual_loop_tiny.py --work-dir work_dirs/tiny --resume
    {command} configs/dual_loop_tiny.py --dry-run
    {command} configs/dual_loop_4b.py --deepspeed zero2 --cfg-options train_dataloader.batch_size=8

Hands over to the train command of XTuner in this process. `xtuner train` does the same with the same options, but
returns 0 even when training fails and knows no bare `--resume`. tools/dist_train.sh trains in several processes.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', help='config file, or the name of a config that ships with xtuner')
    parser.add_argument('--work-dir', help='folder for checkpoints and logs (default: work_dirs/<name of config>)')
    parser.add_argument('--deepspeed', help='zero1, zero2, zero2_fp32, zero2_offload, or a DeepSpeed JSON file')
    parser.add_argument('--resume', nargs='?', const='latest', metavar='CHECKPOINT',
                        help='continue from a checkpoint; without a path, from the latest in the work dir')
    parser.add_argument('--seed', type=int)
    parser.add_argument('--dry-run', action='store_true', help='build everything, take one step of each loop on real '
                        'data, print its seconds and peak memory, and leave nothing behind but indexes of data')
    add_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def act(args: Namespace) -> int:
    from dual_loop.engine.start import train

    train(args)
    return 0


COMMAND = Command('train', ABOUT, add_arguments, act, takes_signals=True)
