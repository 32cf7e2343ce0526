"""What the commands of all evaluations share: arguments, the data, the processes, errors and the final table."""

import os
import sys
import traceback
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from dual_loop.checkpoints.trained_model import EXPORTED_DTYPES, EXPORTED_PARTS
from dual_loop.datasets import MissingData, RefCOCODataset, TooManyBadSamples
from dual_loop.datasets.from_config import build_dataset
from dual_loop.datasets.workers import LOADER_TIMEOUT
from dual_loop.demo import ensure_demo_data
from dual_loop.stop import CannotGoOn, Interrupted, interruptible
from llava_sam2.paths import CHECKOUT
from llava_sam2.portable.static_decoding import KeptDecoder

from .loading import Loaded, load_model
from .page import Example, write_page
from .predictor import PROTOCOLS
from .processes import Processes, Stopped
from .results import write_results
from .scores import THRESHOLDS

#: Partition that published figures are for.
SPLIT_BY = dict(refcoco='unc', refcocog='umd') | {'refcoco+': 'unc'}
DEFAULT_OUT = Path('work_dirs/eval')
TINY, DEMO_CONFIG = CHECKOUT / 'assets/tiny', CHECKOUT / 'configs/_base_/demo_data.py'
#: Metric -> how the table names it.
METRICS = {
    'ciou': 'cIoU (sum of intersections / sum of unions)',
    'giou': 'gIoU (mean IoU)',
    **{f'precision@{value}': f'precision@{value} (share with IoU >= {value})' for value in THRESHOLDS},
    'no_seg_rate': 'share of answers without [SEG] (scored as empty masks)',
}


def evaluation_parser(description: str, datasets: Sequence[str] = (), protocols: bool = True,
                      max_new_tokens: int = 256, splits: bool = True) -> ArgumentParser:
    """Arguments of every evaluation.

    Args:
        description: docstring of the command.
        datasets: what its first argument may be; without any, the command itself sets ``dataset``.
        protocols: whether ``--protocol`` can be chosen.
        max_new_tokens: default of ``--max_new_tokens``.
        splits: whether the data is a split of RefCOCO, or the command has arguments of its own for it.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    if datasets:
        parser.add_argument('dataset', metavar='DATASET', choices=datasets, help=', '.join(datasets))
    parser.add_argument('model', nargs='?', help='folder of a model, or a config file (default: assets/tiny, on the '
                        'demo data)')
    parser.add_argument('checkpoint', nargs='?', help='of a run of the config; without one, its base weights')
    if splits:
        _add_split(parser)
    if protocols:
        parser.add_argument('--protocol', choices=PROTOCOLS, default='generate',
                            help='generate: the model must say [SEG] itself, as for published numbers; forced: the '
                                 'answer is given, which is faster and another measure (default: %(default)s)')
    parser.add_argument('--max_new_tokens', type=count, metavar='N', default=max_new_tokens,
                        help='of an answer (default: %(default)s)')
    parser.add_argument('--batch-size', type=count, metavar='B', default=16,
                        help='sentences at a time; the same results need the same B (default: %(default)s)')
    parser.add_argument('--num-workers', type=count_or_none, metavar='N', default=2,
                        help='processes that read images, for each GPU (default: %(default)s)')
    parser.add_argument('--loader-timeout', type=count_or_none, metavar='S', default=LOADER_TIMEOUT,
                        help='seconds to wait for the images of a batch; 0 for no limit (default: %(default)s)')
    parser.add_argument('--plain-decoding', action='store_true', help='without the caches, the compiled layers and the '
                        'captured graphs that decode several times as fast on a GPU')
    parser.add_argument('--dtype', choices=EXPORTED_DTYPES, help='of the weights (default: what the model states)')
    parser.add_argument('--ema', action='store_true', help='the averages of the checkpoint instead of its weights')
    parser.add_argument('--parts', choices=EXPORTED_PARTS, default='full',
                        help='parts of the checkpoint (default: all)')
    parser.add_argument('--base', help='folder of the base weights, if not the one in the config')
    parser.add_argument('--out', type=Path, help='JSON to write (default: work_dirs/eval/<model>_<dataset>_<split>_'
                        '<protocol>.json); replaces an older one')
    parser.add_argument('--examples', type=count_or_none, metavar='N', default=8,
                        help='best, worst and random examples, so many of each, on a page beside the JSON; 0 for no '
                             'page (default: %(default)s)')
    return parser


def _add_split(parser: ArgumentParser) -> None:
    parser.add_argument('--split', default='val', choices=('val', 'testA', 'testB', 'test'))
    parser.add_argument('--split_by', help='partition (default: umd of refcocog, else unc)')
    parser.add_argument('--max_samples', type=count, metavar='N', help='the first N images only')
    parser.add_argument('--max_texts_per_image', type=count, metavar='N', help='the first N sentences of each only')
    parser.add_argument('--data-root', type=Path, metavar='DIR', help='folder of refcoco, refcoco+ and refcocog '
                        '(default: data/ref_seg)')


def run(command: str, args: Namespace, evaluate: Callable[[Namespace, Loaded, RefCOCODataset, Processes], dict | None],
        make_dataset: Callable[[Namespace], Any] | None = None,
        show: Callable[[Mapping[str, Any]], str] | None = None,
        illustrate: Callable[..., list[Example]] | None = None) -> int:
    """Evaluate, write the results and a page of them, and show them; errors become one line.

    Args:
        command: its name, before errors.
        args: of :func:`evaluation_parser`.
        evaluate: gives the results on the first rank, None on the others.
        make_dataset: in place of :func:`referring_dataset`.
        show: in place of :func:`table`.
        illustrate: draws the examples of the page, called with the model, the data, the results and how many.

    Returns:
        The exit status: 128 + the signal's number if interrupted, 1 after an error.
    """
    processes = Processes(args.loader_timeout)
    if processes.device.type == 'cpu':
        # Sums depend on how many threads share them, and torchrun gives one process many and several one each.
        torch.set_num_threads(1)
    try:
        with interruptible():
            check_out((args.out or DEFAULT_OUT / 'results.json').absolute())
            dataset = (make_dataset or referring_dataset)(args)
            loaded = load_model(args.model or TINY, args.checkpoint, args.ema, args.dtype, processes.device, args.parts,
                                args.base)
            # Compiling takes some seconds for each kind of batch, which an evaluation has a few of.
            loaded.decoder = None if args.plain_decoding else KeptDecoder(
                compile=processes.device.type == 'cuda', rows=args.batch_size)
            results = evaluate(args, loaded, dataset, processes)
    except Interrupted as error:
        processes.stop(signal=error.number)
        if processes.rank == 0:
            _complain(command, f'interrupted after {processes.done} sentences; nothing was written')
        return 128 + error.number
    except Stopped as error:
        if processes.rank == 0:
            _complain(command, f'{error}; stopped after {processes.done} sentences, nothing was written')
        return 1
    except (OSError, ValueError, TooManyBadSamples, CannotGoOn) as error:
        if processes.stop(str(error)):  # most errors are met by all of them
            _complain(command, str(error))
        return 1
    except Exception as error:
        processes.stop(repr(error))
        # Not raised again: what holds the traceback also holds the loader, whose workers would never be told to end.
        traceback.print_exc()
        return 1
    if results is None:
        return 0
    out = args.out or default_out(results, args.dtype)
    replaced = 'replaced' if out.exists() else 'wrote'
    try:
        write_results(out, results)
        print((show or table)(results))
        print(f'{replaced} {out}')
        if args.examples and illustrate:
            examples = illustrate(loaded, dataset, results, args.examples)
            print(f'pictures: {write_page(out.with_suffix(".html"), results, examples)}')
    except OSError as error:
        _complain(command, str(error))
        return 1
    return 0


def check_out(out: Path) -> None:
    """Raise now if results could not be written to ``out`` hours later.

    Raises:
        ValueError: it is not named like a JSON file, beside which a page goes.
        OSError: its folder cannot be made or written.
    """
    if out.suffix != '.json' or out.is_dir():
        raise ValueError(f'--out {out}: give a file that ends in .json; the page goes beside it')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f'--out {out}: {out.parent} cannot be made ({error.strerror}); give another file') from error
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f'--out {out}: {out.parent} cannot be written; give another file')


def referring_dataset(args: Namespace) -> RefCOCODataset:
    """The split that the arguments name; without a model and a folder of data, of the demo data."""
    split_by = args.split_by or SPLIT_BY[args.dataset]
    if args.model is None and args.data_root is None:
        settings = demo_settings(args.dataset)
        if int(os.environ.get('RANK', 0)) == 0:
            print(f'NO MODEL GIVEN: this evaluates assets/tiny on the synthetic scenes of {settings["data_root"]}, '
                  'which are made on first use. No number of this run can be compared with a published one.')
        return build_dataset(dict(settings, split=args.split, split_by=split_by))
    root = args.data_root.absolute() if args.data_root else CHECKOUT / 'data/ref_seg'
    if not (root / args.dataset).is_dir():
        raise FileNotFoundError(f'{root / args.dataset} does not exist: give the folder of refcoco, refcoco+ and '
                                'refcocog with --data-root')
    try:
        return RefCOCODataset(root, args.dataset, args.split, split_by)
    except MissingData as error:
        reason = str(error).partition(', or set optional=True')[0]  # a setting of configs
        raise FileNotFoundError(f'{args.dataset}, split {args.split!r}: {reason}') from error


def demo_settings(dataset: str) -> dict:
    """A variant in the demo world; of refcoco the scenes that the demo runs hold out."""
    if dataset == 'refcoco':
        return Config.fromfile(DEMO_CONFIG).refcoco_val
    prepare = dict(type=ensure_demo_data, root=f'data/demo_{dataset}', images=1000, seed=0, sources=[dataset])
    return dict(type=RefCOCODataset, data_root=f'{prepare["root"]}/ref_seg', dataset=dataset, prepare=prepare)


def default_out(results: Mapping[str, Any], dtype: str | None = None) -> Path:
    """Where results go if nobody says: those of a part, or in a type that was asked for, do not replace others."""
    data = results['dataset']
    limits = ('max_images', 'images'), ('max_texts_per_image', 'texts'), ('max_samples', 'objects')
    parts = [f'{data[key]}{unit}' for key, unit in limits if data.get(key)] + [dtype]
    split_by = [] if data['split_by'] == SPLIT_BY.get(data['name']) else [data['split_by']]
    task = [] if results['task'] == 'referring' else [results['task']]
    names = [results['model']['name'], *task, data['name'], *split_by, data['split'], results['protocol'], *parts]
    return DEFAULT_OUT / ('_'.join(filter(None, names)) + '.json')


def table(results: Mapping[str, Any]) -> str:
    """What is measured of what, how, and the metrics under their full names."""
    data, counts, model, timing = (results[key] for key in ('dataset', 'counts', 'model', 'timing'))
    lines = [
        f'{results["task"]}, {data["name"]} {data["split"]} (split by {data["split_by"]}), protocol '
        f'{results["protocol"]}: {counts["sentences"]} sentences of {counts["images"]} images',
        f'model {model["name"]}, {results["dtype"]}, weights {model["fingerprint"][:12]}',
    ]
    if data.get('max_images') or data.get('max_texts_per_image'):
        lines.append('only a part of the split')
    if counts.get('left_out'):
        lines.append(f'{counts["left_out"]} objects or sentences of the split could not be used, see above')
    named = {METRICS.get(name, name): f'{value:.4f}' for name, value in results['metrics'].items()}
    named['sentences per second'] = f'{timing["sentences_per_second"]:.2f} ({timing["processes"]} x {timing["device"]})'
    width = max(map(len, named))
    return '\n'.join(lines + [f'  {name:{width}}  {value}' for name, value in named.items()])


def count(text: str) -> int:
    """A whole number from 1, as an argument."""
    return _whole(text, 1)


def count_or_none(text: str) -> int:
    """A whole number from 0, as an argument."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f'{text!r} is not a whole number from {least} on')
    return int(text)


def _complain(command: str, message: str) -> None:
    print(f'{command}: {message}', file=sys.stderr)
