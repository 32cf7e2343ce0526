"""Referring segmentation on RefCOCO, RefCOCO+ or RefCOCOg: cIoU, gIoU and precision over every sentence of a split.

    python tools/eval_refcoco.py refcoco                            # assets/tiny on the demo data
    python tools/eval_refcoco.py refcoco+ FOLDER --split testA
    python tools/eval_refcoco.py refcocog CONFIG CHECKPOINT --ema --split test

FOLDER is an exported or released model. tools/dist_eval.sh takes the same arguments and uses all GPUs.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from argparse import Namespace

from dual_loop.datasets import RefCOCODataset
from dual_loop.evaluation.command_line import SPLIT_BY, evaluation_parser, run
from dual_loop.evaluation.examples import referring_examples
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.processes import Processes
from dual_loop.evaluation.referring import evaluate_referring
from dual_loop.stop import run_command


def evaluate(args: Namespace, loaded: Loaded, dataset: RefCOCODataset, processes: Processes) -> dict | None:
    return evaluate_referring(
        loaded, dataset, args.protocol, args.batch_size, args.max_new_tokens, args.max_samples,
        args.max_texts_per_image, args.num_workers, processes)


def main(argv: list[str] | None = None) -> int:
    """Evaluate; returns the exit status."""
    args = evaluation_parser(__doc__, tuple(SPLIT_BY)).parse_args(argv)
    return run('eval_refcoco', args, evaluate, illustrate=referring_examples)


if __name__ == '__main__':
    run_command(main)
