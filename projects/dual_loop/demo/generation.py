"""Making a complete demo folder, once, whoever asks first."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS

from dual_loop.demo.formats import SOURCES, Written
from dual_loop.demo.scene import sample_scene
from dual_loop.demo.truth import write_scenes
from dual_loop.demo.wording import description_of, refer
from dual_loop.demo.world import WORLDS
from dual_loop.process_pool import process_pool
from llava_sam2.claims import alone
from llava_sam2.cores import usable_cores
from llava_sam2.paths import resolve, writing
from llava_sam2.progress import Progress

FORMAT = 2  # raise it with every change of content, so that folders made before it are not taken for current ones
MANIFEST = 'manifest.json'
MIN_IMAGES = 4  # one for each RefCOCO split
CHUNK = 50  # scenes of one unit of work and of one tar; independent of the number of workers
CORPUS_SOURCE = 8  # random key of the tokenizer corpus; no data set has it


@dataclass(frozen=True)
class Settings:
    """What decides about the content of a folder; see ``make_demo_data``. ``sources`` are keys of ``SOURCES``."""

    images: int
    seed: int
    sources: list[str]
    world: str
    split: str | None


Task = tuple[Path, Settings, str, int, int]  # root, settings, source, first scene and the one after the last


def make_demo_data(out: str | Path, images: int = 400, seed: int = 0, workers: int | None = None, progress: bool = True,
                   sources: Sequence[str] | None = None, world: str = 'a', split: str | None = None) -> Path:
    """Write synthetic data in the five on-disk formats: SA-V pairs, SA-1B, Open Images, RefCOCO and Describe Anything.

    What a source holds depends on ``images``, ``seed``, ``world`` and ``split`` alone, and of more images the first
    ones are the same. The folder of each source has a ``scenes.jsonl`` that says what is in its scenes. All appears
    under ``out`` at once, when complete.

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
        world: 'a', or 'b', which has names that 'a' does not have (``world.py``).
        split: of all images of RefCOCO and its variants; None gives two of twenty to 'val' and one each to 'testA' and
            'testB' (in RefCOCOg two to 'test').

    Returns:
        ``out``.

    Raises:
        ValueError: settings out of range.
        FileExistsError: ``out`` holds something already.
        CannotWrite: the disk takes no more, or ``out`` cannot be written.
    """
    out = Path(out).absolute()
    settings = _check_settings(images, seed, workers, sources, world, split)
    with _lock(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(f'{out} is not empty: remove it or choose another folder for the demo data')
        _build(out, settings, workers, progress)
    return out


@FUNCTIONS.register_module()
def ensure_demo_data(root: str | Path, images: int = 400, seed: int = 0, workers: int | None = None,
                     progress: bool = True, sources: Sequence[str] | None = None, world: str = 'a',
                     split: str | None = None) -> Path:
    """Make the demo data unless a complete set with the same settings is there; safe to call from several processes.

    Args:
        root: folder of the demo data.
        images, seed, workers, progress, sources, world, split: see ``make_demo_data``.

    Returns:
        ``root``, as an absolute path.

    Raises:
        ValueError: settings out of range, or ``root`` holds demo data of other settings.
        FileExistsError: ``root`` holds something else.
        FileNotFoundError: a part of the files in ``root`` is gone.
        CannotWrite: the disk takes no more, or ``root`` cannot be written.
    """
    root = resolve(root)
    settings = _check_settings(images, seed, workers, sources, world, split)
    if _is_current(root, settings):  # no lock needed, so that a read-only folder will do
        return root
    with _lock(root):
        if not _is_current(root, settings):
            _build(root, settings, workers, progress)
    return root


def demo_corpus(seed: int, n: int) -> list[str]:
    """Sentences of all demo worlds to train a tokenizer on; their scenes are in no data set.

    Args:
        seed: not negative.
        n: how many.

    Returns:
        ``n`` texts, expressions and descriptions in turn, a scene of each world in turn.
    """
    worlds = list(WORLDS.values())
    texts: list[str] = []
    index = 0
    while len(texts) < n:
        rng = np.random.default_rng([seed, CORPUS_SOURCE, index])
        scene = sample_scene(rng, worlds[index % len(worlds)])
        for target in range(len(scene.objects)):
            texts += [refer(rng, scene, target).text, description_of(rng, scene, target).text]
        index += 1
    return texts[:n]


def scene_rng(seed: int, source: str, index: int) -> np.random.Generator:
    """The generator of scene ``index`` of the named source, as the writers receive it."""
    return np.random.default_rng([seed, SOURCES[source].number, index])


def _check_settings(images: int, seed: int, workers: int | None, sources: Sequence[str] | None, world: str,
                    split: str | None) -> Settings:
    """The settings with the names of the writers to run; raises when one makes no sense."""
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
    if world not in WORLDS:
        raise ValueError(f'world={world!r} is unknown: use {" or ".join(WORLDS)}')
    names = [name for name, group in groups.items()
             if (SOURCES[name].by_default if sources is None else group in sources)]
    of_splits = {name: SOURCES[name].splits for name in names if SOURCES[name].splits}
    if split is not None and not (of_splits and all(split in splits for splits in of_splits.values())):
        raise ValueError(f'split={split!r} fits none of the sources, or not all: ' + ('; '.join(
            f'{name} has {", ".join(splits)}' for name, splits in of_splits.items()) or 'none of them has splits'))
    return Settings(images, seed, names, world, split)


def _is_current(root: Path, settings: Settings) -> bool:
    """Whether ``root`` holds the demo data asked for; raises if it holds anything else."""
    asked = dict(format=FORMAT, **asdict(settings))
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
    for name in settings.sources:
        folder = root / SOURCES[name].folder
        for kind, there in _extent(folder).items():
            count = stated.get(kind, {}).get(name, 0)  # older manifests do not say
            if there < count:
                raise FileNotFoundError(f'{folder} has {there} of its {count} {kind}: remove {root}, and the demo data '
                                        'are made again')
    return True


def _extent(folder: Path) -> dict[str, int]:
    """How many files there are, and bytes in them."""
    sizes = [os.path.getsize(os.path.join(place, file)) for place, _, files in os.walk(folder) for file in files]
    return dict(files=len(sizes), bytes=sum(sizes))


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


def _build(root: Path, settings: Settings, workers: int | None, progress: bool) -> None:
    """Write everything into a temporary folder beside ``root`` and rename it; the caller holds the lock."""
    partial = root.parent / f'.{root.name}.partial'
    if partial.exists():  # an earlier run was killed
        shutil.rmtree(partial)
    counts = {name: max(1, int(settings.images * SOURCES[name].share)) for name in settings.sources}
    tasks = [(partial, settings, name, start, min(start + CHUNK, count))
             for name, count in counts.items() for start in range(0, count, CHUNK)]
    workers = min(workers or min(16, usable_cores()), len(tasks))
    records: dict[str, list] = {name: [] for name in counts}
    scenes: dict[str, list] = {name: [] for name in counts}
    # OpenCV's threads do not survive a fork, and images this small gain nothing from them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with Progress(sum(counts.values()), f'demo data in {root}', 'scenes', shown=progress) as bar:
            for task, (listed, shown) in zip(tasks, _results(tasks, workers)):
                records[task[2]] += listed
                scenes[task[2]] += shown
                bar.update(task[4] - task[3])
        for name in counts:
            source = SOURCES[name]
            if source.index is not None:
                source.index(partial / source.folder, records[name])
            write_scenes(partial / source.folder, scenes[name])
        extents = {name: _extent(partial / SOURCES[name].folder) for name in counts}
        manifest = dict(format=FORMAT, **asdict(settings), scenes=counts) | {
            kind: {name: extent[kind] for name, extent in extents.items()} for kind in ('files', 'bytes')}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        cv2.setNumThreads(threads)


def _results(tasks: list[Task], workers: int) -> Iterator[Written]:
    """Results of ``_write`` in the order of the tasks."""
    if workers == 1:
        yield from map(_write, tasks)
        return
    with process_pool(workers) as pool:
        yield from pool.map(_write, tasks)


def _write(task: Task) -> Written:
    root, settings, name, start, stop = task
    source = SOURCES[name]
    rngs = [scene_rng(settings.seed, name, index) for index in range(start, stop)]
    options = dict(split=settings.split) if source.splits else {}
    return source.write(root / source.folder, rngs, start, WORLDS[settings.world], **options)
