"""What the commands of all evaluations share: the data, the processes, errors and the final table."""

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from dual_loop.datasets import MissingData, RefCOCODataset
from dual_loop.datasets.from_config import build_dataset
from dual_loop.demo import ensure_demo_data
from dual_loop.refusals import complain, refusal
from dual_loop.stop import Interrupted, interruptible
from dual_loop.visualization.report import link_evaluation
from llava_sam2.paths import CHECKOUT, CannotWrite
from llava_sam2.portable.static_decoding import KeptDecoder

from .loading import Loaded, check_choice, load_model
from .page import Example, write_page
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


def run(args: Namespace, evaluate: Callable[[Namespace, Loaded, RefCOCODataset, Processes], dict | None],
        make_dataset: Callable[[Namespace], Any] | None = None,
        show: Callable[[Mapping[str, Any]], str] | None = None,
        illustrate: Callable[..., list[Example]] | None = None) -> int:
    """Evaluate, write the results and a page of them, and show them; errors become one line.

    Args:
        args: of the command; ``caller`` stands before errors.
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
            check_choice(args.model or TINY, args.checkpoint, args.ema, args.parts, args.base)  # before data are made
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
            print(f'{args.caller}: interrupted after {processes.done} sentences; nothing was written', file=sys.stderr)
        return 128 + error.number
    except Stopped as error:
        if processes.rank == 0:
            print(f'{args.caller}: {error}; stopped after {processes.done} sentences, nothing was written',
                  file=sys.stderr)
        return 1
    except Exception as error:
        said = refusal(error)
        if said is not None:
            if processes.stop(said):  # most errors are met by all of them
                complain(args.caller, error, said)
            return 1
        processes.stop(repr(error))
        # Not raised again: what holds the traceback also holds the loader, whose workers would never be told to end.
        traceback.print_exc()
        return 1
    if results is None:
        return 0
    out = args.out or default_out(results, args.dtype)
    replaced = 'replaced' if out.exists() else 'wrote'
    write_results(out, results)
    print((show or table)(results))
    print(f'{replaced} {out}')
    if args.examples and illustrate:
        examples = illustrate(loaded, dataset, results, args.examples)
        report = report_of(args.checkpoint)
        page = write_page(out.with_suffix('.html'), results, examples, report)
        print(f'pictures: {page}')
        if report:
            try:
                link_evaluation(report, page, out.stem)
            except CannotWrite as error:  # the results are there all the same
                print(f'{args.caller}: note: {error}', file=sys.stderr)
    return 0


def report_of(checkpoint: str | None) -> Path | None:
    """The report of the run that a checkpoint is of, if it stands beside it."""
    report = Path(checkpoint).absolute().parent / 'report.html' if checkpoint else None
    return report if report and report.is_file() else None


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
