"""How long a training step takes, what its phases take, and how near the device's roofs they are.

    python tools/benchmark_step.py configs/dual_loop_tiny.py --plain
    python tools/benchmark_step.py configs/rehearsal_4b.py --batch-size 16 --caption-len 256 --deepspeed zero2 --plain
    torchrun --nproc_per_node 2 tools/benchmark_step.py configs/rehearsal_4b.py --deepspeed zero2 --launcher pytorch

Builds the model of the config (random weights will do) and trains it for a few steps through the config's own train
loop, on samples that are made in memory. Every row of loop 1 is described by the teacher, and no description ends early
(random weights would), so a step has the same work every time. Data loading is not timed; tools/benchmark_data.py does
that. Writes nothing but the report.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import argparse
import tempfile

from mmengine.config import Config, DictAction

from dual_loop.engine import compat
from dual_loop.stop import interruptible
from dual_loop_command.command import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--batch-size', type=int, help='rows of each loop (default: that of train_dataloader)')
    parser.add_argument('--caption-len', type=int, help='tokens of a caption (default: model.max_caption_len)')
    parser.add_argument('--accumulate', type=int, default=1, help='micro-batches of each loop in a step')
    parser.add_argument('--pairs', type=float, default=0.5, help='share of loop-1 rows with a second image')
    parser.add_argument('--vary', action='store_true', help='captions of all lengths, the teacher may end early')
    parser.add_argument('--plain', action='store_true', help='measure the straightforward way too, in the same run')
    parser.add_argument('--profile', action='store_true',
                        help='one more step under torch.profiler: OUT.profile.txt and OUT.trace.json.gz (for Perfetto)')
    parser.add_argument('--runs', type=int, default=5, help='timed steps')
    parser.add_argument('--warm-up', type=int, default=2, help='steps before them')
    parser.add_argument('--json', type=Path, default=Path('benchmark_step.json'), metavar='OUT')
    parser.add_argument('--deepspeed', help='as in tools/train.py')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args(argv)


def benchmark_config(args: argparse.Namespace) -> Config:
    """The config's model and loop with samples in memory and without anything that measures, draws or saves."""
    from dual_loop.benchmark.step_hook import StepBenchmark
    from llava_sam2.portable.configuration import Sa2VAConfig

    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if 'loops' in cfg.model or cfg.model.get('bridge') is None:
        raise ValueError(f'{args.config} does not train the two loops, which this tool makes batches for')
    rows = args.batch_size or cfg.train_dataloader.batch_size
    tokens = args.caption_len or cfg.model.max_caption_len
    base = cfg.model.base
    network = base.get('network') or Config.fromfile(Path(base.pretrained) / 'config.json').to_dict()
    config = Sa2VAConfig(**network)
    samples = dict(type='dual_loop.benchmark.synthetic.SyntheticSamples', size=4 * rows * args.accumulate,
                   image_size=config.image_size, grounding_size=config.grounding_size, region_grid=config.region_grid,
                   tokenizer=base.tokenizer, vary=args.vary)
    loader = dict(sampler=dict(type='InfiniteSampler', shuffle=False), batch_size=rows, num_workers=0, pin_memory=True,
                  collate_fn=dict(type='dual_loop.datasets.collate_samples'))
    hook = dict(type='dual_loop.benchmark.step_hook.StepBenchmark', rows=rows * args.accumulate, caption_len=tokens,
                out=str(args.json.resolve()), plain=args.plain, warm_up=args.warm_up, runs=args.runs,
                forced=not args.vary, profile=args.profile)
    steps = len(StepBenchmark(**{key: value for key, value in hook.items() if key != 'type'}).plan)
    cfg.model.max_caption_len = tokens
    cfg.train_dataloader = dict(loader, dataset=dict(samples, pairs=args.pairs))
    cfg.train_cfg.pop('loop2_dataloader')  # else what it has would stay
    cfg.train_cfg.update(loop2_dataloader=dict(loader, dataset=dict(samples, caption_len=tokens)), max_steps=steps,
                         accumulative_counts=args.accumulate, preview_interval=0)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator', 'param_scheduler', 'work_dir'):
        cfg.pop(key, None)
    cfg.default_hooks = dict(logger=None, checkpoint=None)
    cfg.custom_hooks = [each for each in cfg.custom_hooks if 'TeacherEMAHook' in str(each['type'])] + [hook]
    cfg.visualizer = None
    return cfg


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    compat.require_xtuner()
    try:
        cfg = benchmark_config(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'benchmark_step.py: {error}')
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'benchmark.py'
        cfg.dump(file)
        arguments = [str(file), '--work-dir', folder, '--launcher', args.launcher, '--local_rank', str(args.local_rank)]
        if args.deepspeed:
            arguments += ['--deepspeed', args.deepspeed]
        compat.train_by_xtuner(arguments)


if __name__ == '__main__':
    with interruptible():  # until the loop takes over, and after it
        main()
