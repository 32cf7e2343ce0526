"""Writes the config of a run on a folder of one's own: short, on top of a shipped one, with the counts worked out."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from dual_loop.config_files import read_config
from dual_loop.datasets import FolderDataset, MissingData
from dual_loop.datasets.from_config import build_dataset, dataset_settings
from dual_loop.datasets.quarantine import TooManyBadSamples
from llava_sam2.paths import CHECKOUT, write_whole
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.weights.sources import config_of_source

SHARE = 0.5  # of one's own in what each loop sees
HELD_OUT_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6)
STEPS = 200
_FEWEST = 2  # held-out objects: descriptions are exchanged between two
_ALONE = 512  # samples in an epoch where there is nothing else
_SMALL = 448  # pixels; models that see less are the tiny one and its descendants


@dataclass(frozen=True)
class Part:
    """Samples of one's own folder: objects in all, and captions."""

    objects: int
    captions: int


@dataclass(frozen=True)
class Others:
    """The data sets of a loop of the shipped config: how many there are, and position -> samples of those on the disk.
    """

    listed: int
    there: dict[int, int]


def write_config(out: Path, data: Path, model: Path, steps: int = STEPS) -> str:
    """Write ``out`` and return what was found out, in a few lines.

    Args:
        out: config file (.py), which must not exist.
        data: folder, see ``FolderDataset``.
        model: folder of weights.
        steps: optimizer steps of the run.

    Raises:
        ValueError: ``out`` is no name of a config, the data are too few, or the model cannot be told.
        FileExistsError: ``out`` is there.
        FileNotFoundError: no such folder.
    """
    if out.suffix != '.py' or not out.stem.replace('-', '_').isidentifier():
        raise ValueError(f'{out} is no name for a config: give a file such as my_run.py')
    if out.exists():
        raise FileExistsError(f'{out} is there already: remove it or give another name')
    data, model = data.absolute(), model.absolute()
    network = config_of_source(model, None)
    tiny = network.image_size < _SMALL
    base = 'dual_loop_tiny' if tiny else 'dual_loop_4b'
    share, train, held_out = _parts(data)
    sources = dataset_settings(read_config(CHECKOUT / 'configs' / f'{base}.py'))
    others = {loader: _others(sources[loader]) for loader in ('loop 1', 'loop 2')}
    text = '\n'.join(_text(out, data, model, base, network, share, train, held_out, others, steps))
    write_whole(out, text, 'the config')
    return '\n'.join([
        f'{data}: {train.objects} objects to train on, {train.captions} captions; held out {held_out.objects} objects, '
        f'{held_out.captions} captions',
        *(f'{loop}: beside yours {sum(each.there.values())} samples of {len(each.there)} other data sets'
          for loop, each in others.items())])


def _parts(data: Path) -> tuple[float, Part, Part]:
    """The smallest held-out share that leaves enough on both sides, and what is in them."""
    for share in HELD_OUT_SHARES:
        parts = []
        for split in ('train', 'held_out'):
            settings = dict(data_root=data, split=split, held_out_share=share, exclude_image_ids=(), optional=True)
            any_of_them = FolderDataset(**settings, name='mine')  # type: ignore[arg-type]
            objects = len(set(any_of_them.index['object'].tolist()))
            captions = 0
            with suppress(TooManyBadSamples):  # no captions, and masks that cannot be used: which is said by the above
                captions = len(FolderDataset(**settings, captions='only', name='mine').index)  # type: ignore[arg-type]
            parts.append(Part(objects, captions))
        if parts[0].objects and parts[1].objects >= _FEWEST and (parts[1].captions or not parts[0].captions):
            return share, parts[0], parts[1]
    FolderDataset(data, split='all', exclude_image_ids=(), name='mine')  # says what is missing, if all is
    raise ValueError(f'{data} has too few objects to train on some and measure others: add pictures with masks (and '
                     'captions to more of them, if there are any), a dozen at least')


def _others(sources: list[Mapping]) -> Others:
    """Of a loop's data sets."""
    there = {}
    for position, settings in enumerate(sources):
        try:
            there[position] = len(build_dataset(settings))
        except MissingData:
            continue
    return Others(len(sources), {position: count for position, count in there.items() if count})


def _repeats(own: int, others: int) -> int:
    """So that ``SHARE`` of all samples are one's own; alone, so that an epoch is not over at once."""
    return max(1, math.ceil(SHARE / (1 - SHARE) * others / own if others else _ALONE / own))


def _text(out: Path, data: Path, model: Path, base: str, network: Sa2VAConfig, share: float, train: Part,
          held_out: Part, others: dict[str, Others], steps: int) -> Iterator[str]:
    two_loops = bool(train.captions or others['loop 2'].there)
    yield dedent(f'''\
        """Trains on the pictures in {data.name}, from {model.name}. Written by dual-loop init; every line is yours.

            dual-loop check {out}
            dual-loop train {out}
        """
        __import__('dual_loop')  # puts the library shims in place before XTuner goes on

        from mmengine.config import read_base

        from dual_loop.datasets import FolderDataset
        from dual_loop.engine.hooks import CycleHook, HeldOutHook, PictureHook, ReportHook, TeacherEMAHook''')
    if not two_loops:
        yield 'from dual_loop.models import DualLoopModel, MaskLoop'
    if base != 'dual_loop_tiny':
        yield 'from llava_sam2.tokenizer import load_tokenizer'
    yield dedent(f'''
        with read_base():  # all that does not stand here
            from dual_loop_configs.{base} import *
        ''')
    yield from _model(model, base, network)
    yield dedent(f'''\
        # {train.objects} objects to train on, {train.captions} captions. {held_out.objects} objects are held out,
        # by a hash of their picture's name.
        mine = dict(type=FolderDataset, name='mine', held_out_share={share}, **sizes,
                    data_root={str(data)!r})''')
    if base != 'dual_loop_tiny':
        yield "mine.update(tokenizer=dict(type=load_tokenizer, folder=weights))  # counts the tokens of captions"
    yield "held_out = dict(mine, split='held_out')\n"
    yield from _mix('loop 1', "train_dataloader['dataset']", train.objects, '', others['loop 1'])
    if two_loops:
        yield from _mix('loop 2', "train_cfg['loop2_dataloader']['dataset']", train.captions,
                        "captions='only', ", others['loop 2'])
    else:
        yield dedent('''\
            # Without captions there is nothing for loop 2 to learn from.
            model = dict(type=DualLoopModel, base=model['base'], loops=[
                dict(type=MaskLoop, topk=model['topk'], tau=model['tau'], max_caption_len=model['max_caption_len'])])
            del train_cfg['loop2_dataloader']
            ''')
    yield from _steps(steps)
    yield '# Measured on what is held out, before and after.'
    if held_out.captions:
        yield "val_dataloader['dataset'] = dict(held_out, captions='only')  # masks for its captions"
    else:
        yield 'val_dataloader = val_cfg = val_evaluator = None  # captions would be needed'
    yield dedent(f'''\
        custom_hooks = [
            dict(type=TeacherEMAHook, decay=0.999),
            dict(type=HeldOutHook),
            # Objects are described, and found again by the description.
            dict(type=CycleHook, interval={max(1, steps // 2)}, num_samples=16, datasets=[held_out]),
            dict(type=PictureHook, rows=4, first=['mine']),
            dict(type=ReportHook),
        ]
        ''')


def _model(model: Path, base: str, network: Sa2VAConfig) -> Iterator[str]:
    if model == CHECKOUT / 'assets/tiny' and base == 'dual_loop_tiny':
        return
    yield dedent(f'''\
        weights = {str(model)!r}
        model['base'].update(tokenizer=weights, pretrained=weights)
        model['base'].pop('network', None)  # its config.json says how large it is
        sizes = dict(image_size={network.image_size}, grounding_size={network.grounding_size},
                     num_image_tokens={network.num_image_tokens})
        ''')


def _mix(loop: str, dataset: str, own: int, arguments: str, others: Others) -> Iterator[str]:
    datasets = f"{dataset}['datasets']"
    if not own:
        yield f'# {loop}: your folder has no captions for it.\n'
        return
    mine = f'dict(mine, {arguments}repeats={_repeats(own, sum(others.there.values()))})'
    if not others.there:
        yield f'# {loop}: yours alone. Other data (docs/data.md) beside them would keep what the model can do.'
        yield f'{datasets} = [{mine}]\n'
        return
    yield f'# {loop}: half of what it sees is yours; the rest keeps what the model can do.'
    if len(others.there) < others.listed:
        yield f'# Of the {others.listed} other data sets these are there.'
        yield f'{datasets} = [{datasets}[each] for each in {list(others.there)}]'
    yield f'{datasets}.append({mine})\n'


def _steps(steps: int) -> Iterator[str]:
    warm_up = max(1, steps // 20)
    yield dedent(f'''\
        train_cfg.update(max_steps={steps}, preview_interval={max(1, steps // 4)})
        param_scheduler[0].update(end={warm_up})
        param_scheduler[1].update(begin={warm_up}, end={max(steps, warm_up + 1)})
        default_hooks['checkpoint'].update(interval={max(1, steps // 2)})
        ''')
