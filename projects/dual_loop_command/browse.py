"""``dual-loop browse`` and ``tools/browse_dataset.py``."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.arguments import add_options, count
from dual_loop_command.command import Command

ABOUT = """Draw samples as the model sees them: pixels, masks, region cells, caption and tokens.

    {command} configs/dual_loop_tiny.py
    {command} configs/dual_loop_4b.py --source sav refcoco --num-samples 8 --output-dir pictures

Writes a PNG for each sample and index.html with all of them. Needs the tokenizer of the config's model, not its
weights. Data sets that are not there are named and left out; a bad sample is shown as its substitute.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', type=Path)
    parser.add_argument('--source', nargs='+', default=[], metavar='NAME', help='data sets to draw (default: all)')
    parser.add_argument('--num-samples', type=count, default=4, metavar='N',
                        help='samples of each data set, spread evenly over it (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='picks other samples (default: %(default)s)')
    parser.add_argument('--output-dir', type=Path, help='default: work_dirs/browse/<name of config>')
    add_options(parser)


def act(args: Namespace) -> int:
    from dual_loop.config_files import read_config
    from dual_loop.visualization.browse import browse
    from llava_sam2.paths import writing

    folder = args.output_dir or Path('work_dirs/browse') / args.config.stem
    cfg = read_config(args.config, args.cfg_options)
    with writing('the pictures', folder, 'Choose another --output-dir'):
        page, sources, absent = browse(cfg, folder, args.source, args.num_samples, args.seed)
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


COMMAND = Command('browse', ABOUT, add_arguments, act)
