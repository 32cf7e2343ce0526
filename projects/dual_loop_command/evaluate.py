"""``dual-loop eval`` and ``tools/eval_refcoco.py``, ``eval_captions.py`` and ``eval_cycle.py``."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.arguments import DTYPES, LOADER_TIMEOUT, PARTS, count, count_or_none, tokens
from dual_loop_command.command import Command
from llava_sam2.portable.prompts import CAPTION_QUESTION, SHORT_CAPTION_QUESTION

#: ``dual_loop.evaluation.predictor.PROTOCOLS``.
PROTOCOLS = ('generate', 'forced')
REFERRING_TASKS = ('refcoco', 'refcoco+', 'refcocog')

ABOUT = """Measure a model: referring segmentation, region captions, cycle consistency.

    {command} refcoco                                         assets/tiny on the demo data
    {command} refcoco+ FOLDER --split testA                   an exported or released model
    {command} refcocog CONFIG CHECKPOINT --ema --split test   a checkpoint of a run
    {command} refcocog-caption FOLDER
    {command} cycle FOLDER --config configs/dual_loop_4b.py

One process; tools/dist_eval.sh takes the same arguments and uses all GPUs.
"""
REFERRING = """Referring segmentation on RefCOCO, + or g: cIoU, gIoU and precision over every sentence of a split.

    {command}                            assets/tiny on the demo data
    {command} FOLDER --split testA
    {command} CONFIG CHECKPOINT --ema

FOLDER is an exported or released model. tools/dist_eval.sh takes the same arguments and uses all GPUs.
"""
CAPTIONS = """Descriptions of the objects of RefCOCOg from their masks: CIDEr, METEOR and BLEU against what people said.

    {command}                            assets/tiny on the demo data
    {command} FOLDER --split test
    {command} CONFIG CHECKPOINT --ema

FOLDER is an exported or released model. tools/dist_eval.sh refcocog-caption takes the same arguments and uses all
GPUs. METEOR needs Java; without it the other scores are computed.
"""
CYCLE = """Cycle consistency: does a model find an object again from its own description of it?

    {command}                            assets/tiny on the demo data
    {command} FOLDER --config configs/dual_loop_4b.py --source sav
    {command} CONFIG CHECKPOINT --ema --max_samples 500

FOLDER is an exported or released model. Every object is described in its mask, then looked for with the data set's own
words (true), the model's description (generated), its description of another object (shuffled) and none (empty), in
the same picture and, where the data has pairs, in the other frame. If shuffled is near generated, the decoder ignores
language or all descriptions are alike (see the share of duplicates); if empty is near generated, it takes what is
salient. tools/dist_eval.sh takes the same arguments and uses all GPUs.
"""


def _add_model(parser: ArgumentParser) -> None:
    parser.add_argument('model', nargs='?', help='folder of a model, or a config file (default: assets/tiny, on the '
                        'demo data)')
    parser.add_argument('checkpoint', nargs='?', help='of a run of the config; without one, its base weights')


def _add_split(parser: ArgumentParser) -> None:
    parser.add_argument('--split', default='val', choices=('val', 'testA', 'testB', 'test'))
    parser.add_argument('--split_by', help='partition (default: umd of refcocog, else unc)')
    parser.add_argument('--max_samples', type=count, metavar='N', help='the first N images only')
    parser.add_argument('--max_texts_per_image', type=count, metavar='N', help='the first N sentences of each only')
    parser.add_argument('--data-root', type=Path, metavar='DIR', help='folder of refcoco, refcoco+ and refcocog '
                        '(default: data/ref_seg)')


def _add_protocol(parser: ArgumentParser) -> None:
    parser.add_argument('--protocol', choices=PROTOCOLS, default='generate',
                        help='generate: the model must say [SEG] itself, as for published numbers; forced: the '
                             'answer is given, which is faster and another measure (default: %(default)s)')


def _add_work(parser: ArgumentParser) -> None:
    parser.add_argument('--max_new_tokens', type=tokens, metavar='N', default=256,
                        help='of an answer (default: %(default)s)')
    parser.add_argument('--batch-size', type=count, metavar='B', default=16,
                        help='sentences at a time; the same results need the same B (default: %(default)s)')
    parser.add_argument('--num-workers', type=count_or_none, metavar='N', default=2,
                        help='processes that read images, for each GPU (default: %(default)s)')
    parser.add_argument('--loader-timeout', type=count_or_none, metavar='S', default=LOADER_TIMEOUT,
                        help='seconds to wait for the images of a batch; 0 for no limit (default: %(default)s)')
    parser.add_argument('--plain-decoding', action='store_true', help='without the caches, the compiled layers and the '
                        'captured graphs that decode several times as fast on a GPU')
    parser.add_argument('--dtype', choices=DTYPES, help='of the weights (default: what the model states)')
    parser.add_argument('--ema', action='store_true', help='the averages of the checkpoint instead of its weights')
    parser.add_argument('--parts', choices=PARTS, default='full', help='parts of the checkpoint (default: all)')
    parser.add_argument('--base', help='folder of the base weights, if not the one in the config')
    parser.add_argument('--out', type=Path, help='JSON to write (default: work_dirs/eval/<model>_<dataset>_<split>_'
                        '<protocol>.json); replaces an older one')
    parser.add_argument('--examples', type=count_or_none, metavar='N', default=8,
                        help='best, worst and random examples, so many of each, on a page beside the JSON; 0 for no '
                             'page (default: %(default)s)')


def add_referring(parser: ArgumentParser) -> None:
    _add_model(parser)
    _add_split(parser)
    _add_protocol(parser)
    _add_work(parser)


def add_captions(parser: ArgumentParser) -> None:
    _add_model(parser)
    _add_split(parser)
    _add_work(parser)
    parser.add_argument('--question', help=f'what is asked (default: {SHORT_CAPTION_QUESTION!r}; without MODEL '
                        f'{CAPTION_QUESTION!r})')
    parser.set_defaults(dataset='refcocog')


def add_cycle(parser: ArgumentParser) -> None:
    _add_model(parser)
    _add_protocol(parser)
    _add_work(parser)
    parser.add_argument('--config', type=Path, help='whose data sets to take objects from: those of both loops and the '
                        'held-out one (default: MODEL, if it is a config; configs/dual_loop_tiny.py without MODEL)')
    parser.add_argument('--source', nargs='+', default=[], metavar='NAME', help='data sets to take (default: all)')
    parser.add_argument('--max_samples', type=count, default=100, metavar='N',
                        help='objects of each data set, spread evenly over it (default: %(default)s)')


def act_referring(args: Namespace) -> int:
    from dual_loop.evaluation.tasks import referring

    return referring(args)


def act_captions(args: Namespace) -> int:
    from dual_loop.evaluation.tasks import captions

    return captions(args)


def act_cycle(args: Namespace) -> int:
    from dual_loop.evaluation.tasks import cycle

    return cycle(args)


def _add_dataset(parser: ArgumentParser) -> None:
    parser.add_argument('dataset', metavar='DATASET', choices=REFERRING_TASKS, help=', '.join(REFERRING_TASKS))
    add_referring(parser)


#: As the script has it, whose first argument is the data set.
REFERRING_SCRIPT = Command('refcoco', REFERRING.replace('{command}', '{command} refcoco'), _add_dataset, act_referring)
CAPTIONS_TASK = Command('refcocog-caption', CAPTIONS, add_captions, act_captions)
CYCLE_TASK = Command('cycle', CYCLE, add_cycle, act_cycle)
TASKS = (*(Command(name, REFERRING, add_referring, act_referring) for name in REFERRING_TASKS), CAPTIONS_TASK,
         CYCLE_TASK)


def add_arguments(parser: ArgumentParser) -> None:
    below = parser.add_subparsers(title='tasks', metavar='TASK', required=True)
    for task in TASKS:
        each = below.add_parser(task.name, help=task.summary)
        task.fill(each, each.prog)
        each.set_defaults(task=task)
        if task.name in REFERRING_TASKS:
            each.set_defaults(dataset=task.name)


def act(args: Namespace) -> int:
    return args.task.act(args)


COMMAND = Command('eval', ABOUT, add_arguments, act)
