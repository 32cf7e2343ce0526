"""Making a complete demo folder, once, whoever asks first."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS

from dual_loop.demo.formats import SOURCES
from dual_loop.demo.scene import sample_scene
from dual_loop.demo.wording import description_of, refer
from dual_loop.process_pool import process_pool
from llava_sam2.claims import alone
from llava_sam2.cores import usable_cores
from llava_sam2.paths import resolve, writing
from llava_sam2.progress import Progress

FORMAT = 1  # raise it with every change of content, so that folders made before it are not taken for current ones
MANIFEST = 'manifest.json'
MIN_IMAGES = 4  # one for each RefCOCO split
CHUNK = 50  # scenes of one unit of work and of one tar; independent of the number of workers
CORPUS_SOURCE = 8  # random key of the tokenizer corpus; no data set has it

Task = tuple[Path, int, str, int, int]  # root, seed, source, first scene and the one after the last


def make_demo_data(out: str | Path, images: int = 400, seed: int = 0, workers: int | None = None, progress: bool = True,
                   sources: Sequence[str] | None = None) -> Path:
    """Write synthetic data in the five on-disk formats: SA-V pairs, SA-1B, Open Images, RefCOCO and Describe Anything.

    What a source holds depends on ``images`` and ``seed`` alone. All appears under ``out`` at once, when complete.

    Args:
        out: folder to make; it must not exist or be empty.
        images: scenes of each of SA-V, SA-1B, Open Images and RefCOCO; Describe Anything has as many in all,
            half of them in COCOStuff and a quarter each in LVIS and SAV. At least 4.
        seed: not negative; different seeds share no scene.
        workers: processes; None takes one per core that may be used, at most 16.
        progress: show a progress bar.
        sources: some of 'sav', 'sa1b', 'openimages', 'refcoco' and 'dam'; None takes all of these.
            By their own names only: 'refcoco+', 'refcocog', 'dam_Mapillary', 'dam_OpenImages' and 'dam_PACO', each of
            these three with a quarter of the images.

    Returns:
        ``out``.

    Raises:
        ValueError: settings out of range.
        FileExistsError: ``out`` holds something already.
        CannotWrite: the disk takes no more, or ``out`` cannot be written.
    """
    out = Path(out).absolute()
    names = _check_settings(images, seed, workers, sources)
    with _lock(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(f'{out} is not empty: remove it or choose another folder for the demo data')
        _build(out, images, seed, workers, progress, names)
    return out


@FUNCTIONS.register_module()
def ensure_demo_data(root: str | Path, images: int = 400, seed: int = 0, workers: int | None = None,
                     progress: bool = True, sources: Sequence[str] | None = None) -> Path:
    """Make the demo data unless a complete set with the same settings is there; safe to call from several processes.

    Args:
        root: folder of the demo data.
        images, seed, workers, progress, sources: see ``make_demo_data``.

    Returns:
        ``root``, as an absolute path.

    Raises:
        ValueError: settings out of range, or ``root`` holds demo data of other settings.
        FileExistsError: ``root`` holds something else.
        FileNotFoundError: a part of the files in ``root`` is gone.
        CannotWrite: the disk takes no more, or ``root`` cannot be written.
    """
    root = resolve(root)
    names = _check_settings(images, seed, workers, sources)
    if _is_current(root, images, seed, names):  # no lock needed, so that a read-only folder will do
        return root
    with _lock(root):
        if not _is_current(root, images, seed, names):
            _build(root, images, seed, workers, progress, names)
    return root


def demo_corpus(seed: int, n: int) -> list[str]:
    """Sentences of the demo world to train a tokenizer on; their scenes are in no data set.

    Args:
        seed: not negative.
        n: how many.

    Returns:
        ``n`` texts, expressions and descriptions in turn.
    """
    texts: list[str] = []
    index = 0
    while len(texts) < n:
        rng = np.random.default_rng([seed, CORPUS_SOURCE, index])
        scene = sample_scene(rng)
        for target in range(len(scene.objects)):
            texts += [refer(rng, scene, target).text, description_of(rng, scene, target).text]
        index += 1
    return texts[:n]


def scene_rng(seed: int, source: str, index: int) -> np.random.Generator:
    """The generator of scene ``index`` of the named source, as the writers receive it."""
    return np.random.default_rng([seed, SOURCES[source].number, index])


def _check_settings(images: int, seed: int, workers: int | None, sources: Sequence[str] | None) -> list[str]:
    """Names of the writers to run; raises when a setting makes no sense."""
    if images < MIN_IMAGES:
        raise ValueError(f'images={images} is too small: use at least {MIN_IMAGES}, one for each RefCOCO split')
    if seed < 0:
        raise ValueError(f'seed={seed} must not be negative')
    if workers is not None and workers < 1:
        raise ValueError(f'workers={workers} must be at least 1')
    groups = {name: name.split('_')[0] if source.by_default else name for name, source in SOURCES.items()}
    known = list(dict.fromkeys(groups.values()))
    unknown = set(sources or ()) - set(known)
    if unknown:
        raise ValueError(f'sources {sorted(unknown)} are unknown: use some of {", ".join(known)}')
    if sources is None:
        return [name for name, source in SOURCES.items() if source.by_default]
    return [name for name, group in groups.items() if group in sources]


def _is_current(root: Path, images: int, seed: int, names: list[str]) -> bool:
    """Whether ``root`` holds the demo data asked for; raises if it holds anything else."""
    asked = dict(format=FORMAT, images=images, seed=seed, sources=names)
    manifest = root / MANIFEST
    if not manifest.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise FileExistsError(f'{root} is not empty and has no {MANIFEST}: '
                                  'remove it or choose another folder for the demo data')
        return False
    try:
        stated = json.loads(manifest.read_text())
    except ValueError as error:
        raise ValueError(f'{manifest} is damaged ({error}): remove {root}, and it is made again') from error
    found = {key: stated.get(key) for key in asked}
    if found != asked:
        raise ValueError(f'{root} holds demo data with {_listed(found)}, but {_listed(asked)} was asked for: '
                         'remove the folder, choose another one, or ask for the settings it has')
    for name, count in stated.get('files', {}).items():  # older manifests do not say
        there = _count_files(root / SOURCES[name].folder)
        if there < count:
            raise FileNotFoundError(f'{root / SOURCES[name].folder} has {there} of its {count} files: remove {root}, '
                                    'and the demo data are made again')
    return True


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _listed(settings: Mapping) -> str:
    return ', '.join(f'{key}={value}' for key, value in settings.items())


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    with writing('the demo data', root.parent), writing('the demo data', root):  # the lock lies beside it
        root.parent.mkdir(parents=True, exist_ok=True)
        claim = root.parent / f'.{root.name}.lock'
        with alone(claim, lambda owner: print_log(
                f'waiting for {owner}, which makes the demo data (or ended on another host: remove {claim})', 'current',
                logging.WARNING)):
            yield


def _build(root: Path, images: int, seed: int, workers: int | None, progress: bool, names: list[str]) -> None:
    """Write everything into a temporary folder beside ``root`` and rename it; the caller holds the lock."""
    partial = root.parent / f'.{root.name}.partial'
    if partial.exists():  # an earlier run was killed
        shutil.rmtree(partial)
    counts = {name: max(1, int(images * SOURCES[name].share)) for name in names}
    tasks = [(partial, seed, name, start, min(start + CHUNK, count))
             for name, count in counts.items() for start in range(0, count, CHUNK)]
    workers = min(workers or min(16, usable_cores()), len(tasks))
    records: dict[str, list] = {name: [] for name in names}
    # OpenCV's threads do not survive a fork, and images this small gain nothing from them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with Progress(sum(counts.values()), f'demo data in {root}', 'scenes', shown=progress) as bar:
            for task, result in zip(tasks, _results(tasks, workers)):
                records[task[2]] += result
                bar.update(task[4] - task[3])
        for name in names:
            source = SOURCES[name]
            if source.index is not None:
                source.index(partial / source.folder, records[name])
        files = {name: _count_files(partial / SOURCES[name].folder) for name in names}
        manifest = dict(format=FORMAT, images=images, seed=seed, sources=names, scenes=counts, files=files)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        cv2.setNumThreads(threads)


def _results(tasks: list[Task], workers: int) -> Iterator[list]:
    """Results of ``_write`` in the order of the tasks."""
    if workers == 1:
        yield from map(_write, tasks)
        return
    with process_pool(workers) as pool:
        yield from pool.map(_write, tasks)


def _write(task: Task) -> list:
    root, seed, name, start, stop = task
    rngs = [scene_rng(seed, name, index) for index in range(start, stop)]
    return SOURCES[name].write(root / SOURCES[name].folder, rngs, start)
