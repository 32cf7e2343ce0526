"""Cycle consistency: does a model find an object again from its own description of it?

    python tools/eval_cycle.py                                      # assets/tiny on the demo data
    python tools/eval_cycle.py FOLDER --config configs/dual_loop_4b.py --source sav
    python tools/eval_cycle.py CONFIG CHECKPOINT --ema --max_samples 500

FOLDER is an exported or released model. Every object is described in its mask, then looked for with the data set's own
words (true), the model's description (generated), its description of another object (shuffled) and none (empty), in
the same picture and, where the data has pairs, in the other frame. If shuffled is near generated, the decoder ignores
language or all descriptions are alike (see the share of duplicates); if empty is near generated, it takes what is
salient. tools/dist_eval.sh takes the same arguments and uses all GPUs.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from dual_loop.datasets import GroundedDataset
from dual_loop.evaluation.command_line import count, evaluation_parser, run
from dual_loop.evaluation.cycle import CONDITIONS, FRAMES, METRICS, cycle_metrics, evaluate_cycle
from dual_loop.evaluation.examples import cycle_examples
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.processes import Processes
from dual_loop.stop import run_command
from dual_loop.visualization.browse import open_datasets
from llava_sam2.paths import CHECKOUT

TINY_CONFIG = CHECKOUT / 'configs/dual_loop_tiny.py'
NAMES = dict(giou='mIoU', ciou='cIoU', no_seg_rate='no [SEG]')
CAPTION_FIGURES = {
    'caption_len': 'tokens of a description, mean',
    'distinct_1': 'distinct-1 (different tokens / tokens)',
    'distinct_2': 'distinct-2 (different pairs of tokens / pairs)',
    'duplicates': 'share that another object has too',
    'hit_max_len': 'share that did not come to an end',
    'empty': 'share without a word',
    # Of demo data only, whose truth is known.
    'accuracy_all_four': 'share with all four attributes right',
    **{f'accuracy_{name}': f'share with the right {name}' for name in ('shape', 'colour', 'size', 'texture')},
    'accuracy_new_names': 'share of new names said right',
    'accuracy_old_names': 'share of old names said right',
    'unknown_words': 'share of words that no demo sentence has',
}


def parser() -> ArgumentParser:
    result = evaluation_parser(__doc__, splits=False)
    result.add_argument('--config', type=Path, help='whose data sets to take objects from: those of both loops and the '
                        'held-out one (default: MODEL, if it is a config; configs/dual_loop_tiny.py without MODEL)')
    result.add_argument('--source', nargs='+', default=[], metavar='NAME', help='data sets to take (default: all)')
    result.add_argument('--max_samples', type=count, default=100, metavar='N',
                        help='objects of each data set, spread evenly over it (default: %(default)s)')
    return result


def sources_of(args: Namespace) -> dict[str, GroundedDataset]:
    """Name -> data set of the config that the arguments name. One that is in two loaders is taken once; two of one
    name are told apart by their loaders."""
    config = args.config or (Path(args.model) if args.model and args.model.endswith('.py') else None)
    if config is None and args.model:
        raise ValueError(f'{args.model} has no data sets: name a config that has, such as --config {TINY_CONFIG}')
    args.config = config or TINY_CONFIG
    found, absent = open_datasets(Config.fromfile(args.config))
    sources: dict[str, GroundedDataset] = {}
    for loader, dataset in found:
        if len(dataset.index) and not any(_same(dataset, other) for other in sources.values()):
            known = dataset.source in sources
            sources[f'{dataset.source} ({loader})' if known else dataset.source] = dataset
    not_there = ''.join(f'\nnot there: {line}' for line in absent)
    if unknown := [name for name in args.source if name not in sources] or not sources:
        raise ValueError(f'no source {", ".join(unknown) if args.source else "at all"}; the config has '
                         f'{", ".join(sources) or "none"}{not_there}')
    if absent and not args.source:
        print(not_there.strip(), file=sys.stderr)
    return {name: dataset for name, dataset in sources.items() if not args.source or name in args.source}


def _same(one: GroundedDataset, other: GroundedDataset) -> bool:
    return (one.source, one.data_root, one.index_digest) == (other.source, other.data_root, other.index_digest)


def evaluate(args: Namespace, loaded: Loaded, sources: Mapping[str, GroundedDataset], processes: Processes
             ) -> dict | None:
    name = '+'.join([args.config.stem, *args.source])
    return evaluate_cycle(loaded, sources, name, args.protocol, args.batch_size, args.max_new_tokens, args.max_samples,
                          args.num_workers, processes)


def table(results: Mapping[str, Any], examples: int = 3) -> str:
    """Conditions in rows, frames and metrics in columns, for each source and all; then the descriptions."""
    counts, model, timing, samples = (results[key] for key in ('counts', 'model', 'timing', 'samples'))
    lines = [
        f'cycle, {results["dataset"]["name"]}, protocol {results["protocol"]}: {counts["objects"]} objects of '
        f'{counts["images"]} images',
        f'model {model["name"]}, {results["dtype"]}, weights {model["fingerprint"][:12]}',
        *(f'left out: {problem}' for problem in results['dataset']['left_out']), '',
        ' ' * 24 + ''.join(f'{f"{frame} frame":^36}' for frame in FRAMES),
        ' ' * 24 + ''.join(f'{name:>9}' for _ in FRAMES for name in ('objects', *NAMES.values())),
    ]
    names = results['dataset']['sources']
    for source in [*names, 'all'] if len(names) > 1 else ['all']:
        lines += [source, *_rows([each for each in samples if source in ('all', each['source'])])]
    lines += ['', 'descriptions']
    lines += [f'  {title:48}{results["metrics"][name]:9.3f}' for name, title in CAPTION_FIGURES.items()
              if name in results['metrics']]
    lines += ['', 'some of them', *_examples(samples, examples), '',
              'shuffled near generated: the decoder ignores language (or the descriptions are alike); '
              'empty near generated: it takes what is salient',
              f'{timing["seconds"]:.1f} s ({timing["processes"]} x {timing["device"]})']
    return '\n'.join(lines)


def _rows(samples: Sequence[Mapping]) -> list[str]:
    metrics, rows = cycle_metrics(samples), []
    for condition in CONDITIONS:
        cells = []
        for frame in FRAMES:
            count = sum((each['condition'], each['frame']) == (condition, frame) for each in samples)
            cells += [f'{count or "-":>9}', *(
                f'{metrics[f"{name}/{condition}/{frame}"]:9.3f}' if count else f'{"-":>9}' for name in METRICS)]
        rows.append(f'  {condition:22}{"".join(cells)}')
    return rows


def _examples(samples: Sequence[Mapping], count: int) -> list[str]:
    asked = [each for each in samples if (each['condition'], each['frame']) == ('generated', 'same')]
    true = {(each['source'], each['sample_id']): each['text'] for each in samples if each['condition'] == 'true'}
    count, lines = min(count, len(asked)), []
    for number in range(count):
        each = asked[number * len(asked) // count]
        iou = each['intersection'] / each['union']
        lines.append(f'  {each["source"]}, {each["sample_id"]} (IoU {iou:.2f}): {each["text"]!r}')
        if words := true.get((each['source'], each['sample_id'])):
            lines.append(f'    data set: {words!r}')
    return lines


def main(argv: list[str] | None = None) -> int:
    """Evaluate; returns the exit status."""
    return run('eval_cycle', parser().parse_args(argv), evaluate, sources_of, table, cycle_examples)


if __name__ == '__main__':
    run_command(main)
