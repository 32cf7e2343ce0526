"""Draw samples as the model sees them: pixels, masks, region cells, caption and tokens.

    python tools/browse_dataset.py configs/dual_loop_tiny.py
    python tools/browse_dataset.py configs/dual_loop_4b.py --source sav refcoco --num-samples 8 --output-dir pictures

Writes a PNG for each sample and index.html with all of them. Needs the tokenizer of the config's model, not its
weights. Data sets that are not there are named and left out; a bad sample is shown as its substitute.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

from mmengine.config import Config, DictAction

from dual_loop.stop import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('--source', nargs='+', default=[], metavar='NAME', help='data sets to draw (default: all)')
    parser.add_argument('--num-samples', type=int, default=4, metavar='N',
                        help='samples of each data set, spread evenly over it (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='picks other samples (default: %(default)s)')
    parser.add_argument('--output-dir', type=Path, help='default: work_dirs/browse/<name of config>')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings to change')
    args = parser.parse_args(argv)
    if args.num_samples < 1:
        parser.error('--num-samples must be at least 1')
    return args


def main(argv: list[str] | None = None) -> int:
    """Draw; returns the exit status."""
    args = parse_args(argv)
    from dual_loop.visualization.browse import browse  # takes seconds, too long before --help

    folder = args.output_dir or Path('work_dirs/browse') / args.config.stem
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        page, sources, absent = browse(cfg, folder, args.source, args.num_samples, args.seed)
    except (OSError, ValueError) as error:
        print(f'browse_dataset: {error}', file=sys.stderr)
        return 1
    for line in absent:
        print(f'not there: {line}')
    for source in sources:
        print(f'{source.loader}: {source.source}: {len(source.samples)} pictures of {source.length} samples')
        for line in [f'{sample.view.sample_id} {sample.note}' for sample in source.samples if sample.note]:
            print(f'  {line}')
        for line in source.problems:
            print(f'  {line}')
    print(page.absolute())
    return 0


if __name__ == '__main__':
    run_command(main)
