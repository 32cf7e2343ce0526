"""Checkpoints on disk: written whole or not at all, found again, and read without any engine.

What every checkpoint holds stands here and nowhere else.

A run without DeepSpeed leaves files ``iter_N.pth``, which ``torch.load(..., weights_only=True)`` reads:

===================  ==================================================================================================
``state_dict``       the trained tensors, fp32; of a run from random weights all tensors, since the frozen ones exist
                     nowhere else. ``embed_tokens`` and ``lm_head`` only where they were trained
``ema``              ``values``, their averages in fp32 under the same names, and ``num_updates``; absent without
                     TeacherEMAHook
``optimizer``        state of the optimizer
``param_schedulers`` state of each schedule
``message_hub``      history of the log, and ``runtime_info``: ``run`` (see ``engine.resume.describe_run``), ``iter``,
                     the folders of the log, names of the kept checkpoints, held-out figures from before training
``meta``             the config, step, seed, versions
===================  ==================================================================================================

A run with DeepSpeed leaves folders of that name. DeepSpeed's own files (``mp_rank_*``: module, scheduler, message hub;
``*zero_pp_rank_*``: fp32 masters and optimizer state of each rank) are read by resuming alone, which unpickles them.
Everything else reads three plain ones:

===========================  ==========================================================================================
``trainables.safetensors``   the trained tensors, fp32, also where the module is bf16
``ema.safetensors``          their averages, fp32; empty without TeacherEMAHook
``state.json``               ``step``, ``ema_updates`` and ``run``; ``sums``, sha256 of all other files, and ``sum``, of
                             these values
===========================  ==========================================================================================

Zip archives, ``.pth`` and DeepSpeed's files, hold a CRC of each of their records. Version 0.1.0 wrote no ``sums``.

Sample order and random draws follow from seed and step, so no state of generators or samplers is stored.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from llava_sam2.paths import keep_on_disk
from llava_sam2.portable.pickled import read_pickled
from llava_sam2.portable.stored import STATE, TRAINABLES, open_tensors

from .integrity import check_sums, check_zip, damaged, sum_of_values, sums_of

EMA = 'ema.safetensors'
#: Ending of what is being written; nothing reads it.
PARTIAL = '.partial'
#: mmengine's name of the file that names the latest checkpoint.
LATEST = 'last_checkpoint'
_STATE = ('step', 'ema_updates', 'run')


@dataclass
class Trained:
    """What a checkpoint holds besides the state of the optimizer.

    Attributes:
        step: optimizer steps taken.
        trainables: name as in the model's ``state_dict`` -> fp32 tensor.
        ema: the averages under the same names; empty without EMA.
        ema_updates: updates of the average.
        run: see :func:`dual_loop.engine.resume.describe_run`.
    """

    step: int
    trainables: dict[str, Tensor]
    ema: dict[str, Tensor]
    ema_updates: int
    run: dict[str, Any]


def write_plain_parts(folder: Path, trained: Trained, sums: Mapping[str, str] | None = None) -> None:
    """Write the three plain files of a checkpoint folder; ``sums`` are those of the files that are there already."""
    save_file({name: tensor.contiguous().cpu() for name, tensor in trained.trainables.items()}, folder / TRAINABLES)
    save_file({name: tensor.contiguous().cpu() for name, tensor in trained.ema.items()}, folder / EMA)
    state: dict[str, Any] = dict(step=trained.step, ema_updates=trained.ema_updates, run=trained.run)
    state['sums'] = dict(sums or {}) | sums_of(folder, (TRAINABLES, EMA))
    state['sum'] = sum_of_values(state)
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding='utf-8')
    for name in (TRAINABLES, EMA):  # safetensors lets nobody else read what it writes
        shutil.copymode(folder / STATE, folder / name)


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """``step``, ``ema_updates`` and ``run`` of a checkpoint folder, and the sums of its files.

    Raises:
        ValueError: they are not what was written.
    """
    file = folder / STATE
    try:
        state = json.loads(file.read_text(encoding='utf-8'))
        if state.keys() == {*_STATE}:  # of version 0.1.0
            return state, {}
        if state.keys() != {*_STATE, 'sums', 'sum'}:
            raise ValueError(f'it has {", ".join(state)}')
        if state.pop('sum') != sum_of_values(state):
            raise ValueError('its sum is another one')
    except (ValueError, AttributeError) as error:
        raise damaged(file, str(error)) from error
    return state, state.pop('sums')


def check_whole(path: str | Path, everywhere: bool = False) -> None:
    """Refuse a checkpoint that was cut off or changed, for example while it was copied, by the name of the file.

    Of the processes of one machine the first reads and compares the contents, since the others would read the same.

    Args:
        path: file or folder.
        everywhere: every process reads the contents, for a decision that all must take alike.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or a part of the folder is missing.
        ValueError: a file is not whole.
    """
    path = Path(path)
    check_form(path)
    if not everywhere and int(os.environ.get('LOCAL_RANK') or os.environ.get('SLURM_LOCALID') or 0):
        return
    if path.is_dir():
        sums = read_state(path)[1]
        check_sums(path, sums, sums)
        for file in sorted(path.glob('*.pt')) if not sums else ():
            check_zip(file)
    else:
        check_zip(path)


def check_form(path: Path) -> None:
    """Refuse what cannot be a whole checkpoint, without reading its tensors.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or a part of the folder is missing.
        ValueError: a file is not whole.
    """
    if not path.exists():
        raise FileNotFoundError(f'There is no checkpoint {path} to start from.')
    for name in (TRAINABLES, EMA, STATE) if path.is_dir() else ():
        if not (path / name).is_file():
            raise FileNotFoundError(f'{path} has no {name}: it is no whole checkpoint of the dual loop')
    for file in sorted(path.glob('*.pt')) if path.is_dir() else [path]:
        if not zipfile.is_zipfile(file):  # the form that torch.save writes, with its directory at the end
            raise ValueError(f'{file} is not whole, perhaps it was cut off while it was copied: take another one')


def read_trained(path: str | Path, checked: bool = False) -> Trained:
    """Read the trained tensors and their averages from a checkpoint of either form, on the CPU.

    Args:
        path: file or folder.
        checked: the contents were compared with their sums already.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or a part of the folder is missing.
        ValueError: a file is not whole, or no checkpoint of a training run.
    """
    path = Path(path)
    check_form(path)
    if path.is_dir():
        state, sums = read_state(path)
        if not checked:  # DeepSpeed's own parts are not read here
            check_sums(path, sums, (TRAINABLES, EMA))
        trainables, ema = (
            {name: stored.tensor() for name, stored in open_tensors(path / file).tensors.items()}
            for file in (TRAINABLES, EMA))
        return Trained(trainables=trainables, ema=ema, **state)
    if not checked:
        check_zip(path)
    checkpoint = read_pickled(path)
    if 'state_dict' not in checkpoint or 'meta' not in checkpoint:
        raise ValueError(f'{path} is no checkpoint of a training run: it has no state_dict and meta')
    average = checkpoint.get('ema', dict(values={}, num_updates=0))
    run = checkpoint['message_hub']['runtime_info'].get('run', {})
    return Trained(checkpoint['meta']['iter'], checkpoint['state_dict'], average['values'], average['num_updates'], run)


def trained_names(path: Path) -> list[str]:
    """Names of the tensors whose averages a checkpoint holds: all trained ones, or none without TeacherEMAHook."""
    if path.is_dir():
        return list(open_tensors(path / EMA).tensors)
    return list(read_pickled(path).get('ema', {}).get('values', {}))


def publish(partial: Path, final: Path) -> None:
    """Give a completely written file or folder its name, so that after a power cut it is there whole or not at all."""
    for path in [*partial.rglob('*'), partial] if partial.is_dir() else [partial]:
        keep_on_disk(path)
    replaced = final.with_name(f'{final.name}.replaced')
    remove(replaced)
    if final.is_dir():  # of an earlier run; a file is replaced by the next line, a folder cannot be
        final.rename(replaced)
    partial.replace(final)
    keep_on_disk(final.parent)
    note = final.with_name(LATEST)
    fresh = note.with_name(note.name + PARTIAL)
    fresh.write_text(str(final.absolute()), encoding='utf-8')
    keep_on_disk(fresh)
    fresh.rename(note)
    keep_on_disk(final.parent)
    remove(replaced)


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
