"""How many sentences a second tools/eval_refcoco.py answers, and what the time of a batch is spent on.

    python tools/benchmark_eval.py configs/dual_loop_tiny.py --plain
    python tools/benchmark_eval.py configs/rehearsal_4b.py --batch-size 16 64 --dtype bf16 --plain

Builds the base model of the config (random weights will do) and evaluates synthetic sentences about pictures that are
written below a temporary folder: 3 to 11 sentences a picture, in order, as in RefCOCO. Every answer has equally many
tokens, and a mask, whatever the weights would say. Writes nothing but the report.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import argparse
import json
import tempfile

import torch
from mmengine.config import Config, DictAction

from dual_loop.benchmark.evaluation_speed import describe, measure_evaluation
from dual_loop.checkpoints.trained_model import EXPORTED_DTYPES, build
from dual_loop.evaluation.loading import Loaded, exported_network
from dual_loop.stop import run_command
from dual_loop_command.arguments import count, count_or_none
from dual_loop_command.command import Parser
from llava_sam2.paths import write_whole


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--batch-size', type=count, nargs='+', default=[16, 64], metavar='B',
                        help='sentences at a time (default: 16 64)')
    parser.add_argument('--answer-len', type=count, default=12, metavar='N', help='tokens of an answer')
    parser.add_argument('--dtype', choices=EXPORTED_DTYPES, help="of the weights (default: the config's)")
    parser.add_argument('--plain', action='store_true', help='measure plain decoding too, in the same run')
    parser.add_argument('--no-compile', action='store_true', help='leave out the compilation of layers, which a CPU '
                        'never has')
    parser.add_argument('--runs', type=count, default=20, help='timed batches, and as many again by phases')
    parser.add_argument('--warm-up', type=count, default=2, help='batches before them')
    parser.add_argument('--num-workers', type=count_or_none, default=6, metavar='N',
                        help='processes that read pictures')
    parser.add_argument('--json', type=Path, default=Path('benchmark_eval.json'), metavar='OUT')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args(argv)


def load(args: argparse.Namespace, device: torch.device) -> Loaded:
    """The base model of the config as an evaluation has it."""
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    _, base = build(cfg, None)
    dtype = EXPORTED_DTYPES[args.dtype] if args.dtype else base.dtype
    network = exported_network(base, dtype, device, args.config)
    return Loaded(network, base.vocabulary, dict(name=Path(args.config).stem))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    device = torch.device('cuda', 0) if torch.cuda.is_available() else torch.device('cpu')
    try:
        loaded = load(args, device)
    except (FileNotFoundError, ValueError) as error:
        print(f'benchmark_eval: {error}', file=sys.stderr)
        return 1
    sizes: dict[str, dict] = {}
    for size in args.batch_size:
        for way in ('static', 'plain') if args.plain else ('static', ):
            with tempfile.TemporaryDirectory() as folder:
                measured = measure_evaluation(loaded, Path(folder), size, args.answer_len, way == 'plain',
                                              not args.no_compile, args.warm_up, args.runs, args.num_workers)
            sizes.setdefault(str(size), {})[way] = measured
            print(f'{size} {way}: {measured["sentences_per_second"]:.1f} sentences a second', flush=True)
    report = dict(
        config=args.config, answer_len=args.answer_len, runs=args.runs, num_workers=args.num_workers,
        compile=not args.no_compile, dtype=str(loaded.network.dtype).removeprefix('torch.'), torch=torch.__version__,
        device=torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU', threads=torch.get_num_threads(),
        batch_sizes=sizes)
    write_whole(args.json.resolve(), json.dumps(report, indent=1) + '\n', 'the report of the benchmark')
    print(describe(report))
    return 0


if __name__ == '__main__':
    run_command(main)
