"""``dual-loop estimate``."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from dual_loop_command.arguments import add_options, count
from dual_loop_command.command import Command

ABOUT = """Say what a run will cost, without a GPU and without weights: memory by part, largest batch, seconds a step.

    {command} configs/rehearsal_4b.py
    {command} configs/rehearsal_4b.py --gpus 8 --deepspeed zero2
    {command} configs/rehearsal_4b.py --gpus 64 --deepspeed zero2 --network 25
    {command} configs/rehearsal_4b.py --cards 80 --cfg-options model.base.memory_budget=0.5

Takes a step of the real code on tensors that have sizes and no memory: all captions are as long as they may be, half of
the rows of loop 1 have a second image. Seconds are those of arithmetic and decoding at the stated shares of the stated
peaks (what an H100 was measured to do), not a measurement. docs/performance.md compares it with measured peaks.
"""


def share(text: str) -> float:
    """A number above 0 and up to 1, as an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ArgumentTypeError(f'{text!r} is not a share above 0 and up to 1')
    return value


def speed(text: str) -> float:
    """A number above 0, as an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise ArgumentTypeError(f'{text!r} is not a number above 0')
    return value


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', help='config file of a run with loops')
    parser.add_argument('--gpus', type=count, default=1, metavar='N',
                        help='processes, one a GPU (default: %(default)s)')
    parser.add_argument('--deepspeed', help='zero1, zero2, zero2_fp32, zero2_offload, or a DeepSpeed JSON file')
    parser.add_argument('--cards', type=count, nargs='+', default=[24, 40, 80, 141], metavar='GB',
                        help='cards for which the largest batch is looked for (default: 24 40 80 141)')
    parser.add_argument('--tflops', type=speed, default=784, help='peak of the card (default: %(default)s)')
    parser.add_argument('--share', type=share, default=0.4, help='of it that a step reaches (default: %(default)s)')
    parser.add_argument('--bandwidth', type=speed, default=2966, metavar='GB/S',
                        help='peak of its memory (default: %(default)s)')
    parser.add_argument('--bandwidth-share', type=share, default=0.4, metavar='SHARE',
                        help='of it that decoding reaches (default: %(default)s)')
    parser.add_argument('--network', type=speed, default=329, metavar='GB/S',
                        help="of the slowest link between ranks, such as a host's network (default: %(default)s, "
                        'NVLink between H100s of one host)')
    add_options(parser, 'train_dataloader.batch_size=8')


def act(args: Namespace) -> int:
    import dual_loop.registered  # noqa: F401
    from dual_loop.config_files import read_config
    from dual_loop.engine.config_check import check_config_keys
    from dual_loop.estimate.cost import Estimate
    from dual_loop.estimate.table import lines

    cfg = read_config(args.config, args.cfg_options)
    check_config_keys(cfg)
    estimate = Estimate(cfg, args.gpus, args.deepspeed)
    for line in lines(estimate, args.cards, args.tflops, args.share, args.bandwidth, args.bandwidth_share,
                      args.network):
        print(line, flush=True)
    return 0


COMMAND = Command('estimate', ABOUT, add_arguments, act)
