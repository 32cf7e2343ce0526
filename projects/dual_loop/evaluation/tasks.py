"""What each evaluation asks and shows: what stands behind ``dual-loop eval``."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dual_loop.config_files import read_config
from dual_loop.datasets import GroundedDataset, RefCOCODataset
from dual_loop.visualization.browse import open_datasets
from llava_sam2.paths import CHECKOUT
from llava_sam2.portable import prompts

from .captions import evaluate_captions
from .command_line import run, table
from .cycle import evaluate_cycle
from .cycle_table import ACCURACY, cycle_table
from .examples import caption_examples, cycle_examples, referring_examples
from .loading import Loaded
from .processes import Processes
from .referring import evaluate_referring

TINY_CONFIG = CHECKOUT / 'configs/dual_loop_tiny.py'
#: Metric of captions -> how the table names it.
CAPTION_METRICS = {
    'cider': 'CIDEr (papers print these scores times 100)',
    'meteor': 'METEOR',
    **{f'bleu{n}': f'BLEU-{n}' for n in range(1, 5)},
    'words': 'words of a description',
    'reference_words': 'words of a reference',
    'empty': 'share of empty descriptions',
    'hit_max_new_tokens': 'share that did not end within max_new_tokens',
} | ACCURACY


def referring(args: Namespace) -> int:
    """Referring segmentation; returns the exit status."""
    def evaluate(args: Namespace, loaded: Loaded, dataset: RefCOCODataset, processes: Processes) -> dict | None:
        return evaluate_referring(
            loaded, dataset, args.protocol, args.batch_size, args.max_new_tokens, args.max_samples,
            args.max_texts_per_image, args.num_workers, processes)

    return run(args, evaluate, illustrate=referring_examples)


def captions(args: Namespace) -> int:
    """Descriptions of the objects of RefCOCOg; returns the exit status."""
    def evaluate(args: Namespace, loaded: Loaded, dataset: RefCOCODataset, processes: Processes) -> dict | None:
        # The tiny model has not learned the other question.
        question = args.question or (prompts.SHORT_CAPTION_QUESTION if args.model else prompts.CAPTION_QUESTION)
        return evaluate_captions(loaded, dataset, question, args.batch_size, args.max_new_tokens, args.max_samples,
                                 args.max_texts_per_image, args.num_workers, processes)

    def show(results: Mapping[str, Any]) -> str:
        metrics = {CAPTION_METRICS.get(name, name): value for name, value in results['metrics'].items()}
        return f'{table({**results, "metrics": metrics})}\n  tokenizer of the scores: {results["tokenizer"]}'

    return run(args, evaluate, show=show, illustrate=caption_examples)


def cycle(args: Namespace) -> int:
    """Cycle consistency; returns the exit status."""
    def evaluate(args: Namespace, loaded: Loaded, sources: Mapping[str, GroundedDataset], processes: Processes
                 ) -> dict | None:
        name = '+'.join([args.config.stem, *args.source])
        return evaluate_cycle(loaded, sources, name, args.protocol, args.batch_size, args.max_new_tokens,
                              args.max_samples, args.num_workers, processes)

    return run(args, evaluate, cycle_sources, cycle_table, cycle_examples)


def cycle_sources(args: Namespace) -> dict[str, GroundedDataset]:
    """Name -> data set of the config that the arguments name. One that is in two loaders is taken once; two of one
    name are told apart by their loaders."""
    config = args.config or (Path(args.model) if args.model and args.model.endswith('.py') else None)
    if config is None and args.model:
        raise ValueError(f'{args.model} has no data sets: name a config that has, such as --config {TINY_CONFIG}')
    args.config = config or TINY_CONFIG
    found, absent = open_datasets(read_config(args.config))
    sources: dict[str, GroundedDataset] = {}
    for loader, dataset in found:
        if len(dataset.index) and not any(_same(dataset, other) for other in sources.values()):
            known = dataset.source in sources
            sources[f'{dataset.source} ({loader})' if known else dataset.source] = dataset
    not_there = ''.join(f'\nnot there: {line}' for line in absent)
    unknown = [name for name in args.source if name not in sources]
    if unknown or not sources:
        raise ValueError(f'no source {", ".join(unknown) if args.source else "at all"}; the config has '
                         f'{", ".join(sources) or "none"}{not_there}')
    if absent and not args.source:
        print(not_there.strip(), file=sys.stderr)
    return {name: dataset for name, dataset in sources.items() if not args.source or name in args.source}


def _same(one: GroundedDataset, other: GroundedDataset) -> bool:
    return (one.source, one.data_root, one.index_digest) == (other.source, other.data_root, other.index_digest)
