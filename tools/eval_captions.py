"""Short descriptions of the objects of RefCOCOg, given their masks: CIDEr, METEOR and BLEU against what people said.

    python tools/eval_captions.py                                   # assets/tiny on the demo data
    python tools/eval_captions.py FOLDER --split test
    python tools/eval_captions.py CONFIG CHECKPOINT --ema

FOLDER is an exported or released model. tools/dist_eval.sh refcocog-caption takes the same arguments and uses all
GPUs. METEOR needs Java; without it the other scores are computed.
"""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from dual_loop.datasets import RefCOCODataset
from dual_loop.evaluation.captions import evaluate_captions
from dual_loop.evaluation.command_line import evaluation_parser, run, table
from dual_loop.evaluation.examples import caption_examples
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.processes import Processes
from dual_loop.stop import run_command
from llava_sam2.portable import prompts

#: Metric -> how the table names it.
METRICS = {
    'cider': 'CIDEr (papers print these scores times 100)',
    'meteor': 'METEOR',
    **{f'bleu{n}': f'BLEU-{n}' for n in range(1, 5)},
    'words': 'words of a description',
    'reference_words': 'words of a reference',
    'empty': 'share of empty descriptions',
    'hit_max_new_tokens': 'share that did not end within max_new_tokens',
    'accuracy_all_four': 'share with all four attributes right (demo data)',
    **{f'accuracy_{name}': f'share with the right {name}' for name in ('shape', 'colour', 'size', 'texture')},
    'accuracy_new_names': 'share of new names said right',
    'accuracy_old_names': 'share of old names said right',
    'unknown_words': 'share of words that no sentence of the demo has',
}


def evaluate(args: Namespace, loaded: Loaded, dataset: RefCOCODataset, processes: Processes) -> dict | None:
    # The tiny model has not learned the other question.
    question = args.question or (prompts.SHORT_CAPTION_QUESTION if args.model else prompts.CAPTION_QUESTION)
    return evaluate_captions(loaded, dataset, question, args.batch_size, args.max_new_tokens, args.max_samples,
                             args.max_texts_per_image, args.num_workers, processes)


def show(results: Mapping[str, Any]) -> str:
    """The table of all evaluations, with what scores captions."""
    metrics = {METRICS.get(name, name): value for name, value in results['metrics'].items()}
    return f'{table({**results, "metrics": metrics})}\n  tokenizer of the scores: {results["tokenizer"]}'


def main(argv: list[str] | None = None) -> int:
    """Evaluate; returns the exit status."""
    parser = evaluation_parser(__doc__, protocols=False)
    parser.add_argument('--question', help=f'what is asked (default: {prompts.SHORT_CAPTION_QUESTION!r}; without MODEL '
                        f'{prompts.CAPTION_QUESTION!r})')
    parser.set_defaults(dataset='refcocog')
    return run('eval_captions', parser.parse_args(argv), evaluate, show=show, illustrate=caption_examples)


if __name__ == '__main__':
    run_command(main)
