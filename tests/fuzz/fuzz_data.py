"""Damage small data of every format at random, and see whether a data set notices.

    python tests/fuzz/fuzz_data.py --count 500 --seed 0

Each round takes one format and one kind of damage. What may come out:

- the data set is not built, and the error is of a kind that a user can act on and names a file;
- every sample is equal to that of the undamaged data, or is recorded as bad. None is there twice, none is gone.

Anything else is a failure, printed with the number that repeats it (``--only NUMBER``).
"""

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import damaged_entries  # noqa: F401  registers its kinds
import damaged_files  # noqa: F401
import numpy as np
import PIL
import torch
from kinds import KINDS, Kind
from mmengine.logging import MMLogger
from pycocotools import mask as coco

from dual_loop.datasets import (
    BadSample,
    DescribeAnythingDataset,
    OpenImagesDataset,
    RefCOCODataset,
    SA1BDataset,
    SAVPairDataset,
    TooManyBadSamples,
    set_work_dir,
)
from dual_loop.datasets.contract import violations
from dual_loop.demo import make_demo_data

SMALL = dict(image_size=56, grounding_size=64, region_grid=8)
NO_IMAGE = (10**9,)  # excluded, so that the ids of images are looked at
FORMATS: dict[str, Callable] = {
    'sav_npz': lambda root, **more: SAVPairDataset(root / 'sav', **more),
    'sav_release': lambda root, **more: SAVPairDataset(root / 'sav_release', **more),
    'sa1b': lambda root, **more: SA1BDataset(root / 'sa1b', **more),
    'coco_style': lambda root, **more: SA1BDataset(root / 'coco_style', **more),
    'openimages': lambda root, **more: OpenImagesDataset(root / 'openimages', **more),
    'refcoco': lambda root, **more: RefCOCODataset(root / 'ref_seg', exclude_image_ids=NO_IMAGE, **more),
    'dam_listing': lambda root, **more: DescribeAnythingDataset(root / 'dam', 'COCOStuff', exclude_image_ids=NO_IMAGE,
                                                                **more),
    'dam_pickles': lambda root, **more: DescribeAnythingDataset(root / 'dam', 'LVIS', exclude_image_ids=NO_IMAGE,
                                                                **more),
    'dam_sav': lambda root, **more: DescribeAnythingDataset(root / 'dam', 'SAV', **more),
}
FOLDERS = dict(sav_npz='sav', sav_release='sav_release', sa1b='sa1b', coco_style='coco_style', openimages='openimages',
               refcoco='ref_seg', dam_listing='dam/COCOStuff', dam_pickles='dam/LVIS', dam_sav='dam/SAV')


@dataclass
class Outcome:
    """What one round gave.

    Attributes:
        title: format, kind of damage, file and what was done.
        end: 'refused', 'recorded' or 'equal'.
        failures: a sentence each.
    """

    title: str
    end: str = 'equal'
    failures: list[str] = field(default_factory=list)


def make_clean(root: Path, images: int = 8) -> None:
    """The demo's data, and from them the formats that it does not write."""
    make_demo_data(root, images=images, seed=5, workers=1, progress=False,
                   sources=['sav', 'sa1b', 'openimages', 'refcoco', 'dam'])
    (root / 'dam' / 'LVIS' / 'annotations.json').unlink()
    pictures = root / 'ref_seg' / 'refcoco' / 'coco2014' / 'train2014'
    instances = json.loads((root / 'ref_seg' / 'refcoco' / 'instances.json').read_text())
    for folder in ('img', 'js'):
        (root / 'coco_style' / folder).mkdir(parents=True)
    for image in instances['images']:
        annotations = [each for each in instances['annotations'] if each['image_id'] == image['id']]
        name = f'photo_{image["id"]}'  # none of COCO's, which would have to be excluded
        shutil.copy(pictures / image['file_name'], root / 'coco_style' / 'img' / f'{name}.jpg')
        content = dict(image=dict(image, file_name=f'{name}.jpg'), annotations=annotations)
        (root / 'coco_style' / 'js' / f'{name}.json').write_text(json.dumps(content))
    for number in range(2):
        write_video(root / 'sav_release' / f'sav_00000{number}', np.random.default_rng(number))


def write_video(stem: Path, rng: np.random.Generator, masks: int = 10) -> None:
    """A video of noise with two moving boxes, and their masks at every fourth frame."""
    stem.parent.mkdir(exist_ok=True)
    ground = rng.integers(256, size=(80, 96, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(f'{stem}.mp4', cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'mp4v'), 24, (96, 80))
    masklets = []
    for frame in range(4 * masks):
        boxes = [slice(8 + frame, 28 + frame), slice(70 - frame, 86 - frame)]
        picture = ground.copy()
        for colour, box in ((250, boxes[0]), (5, boxes[1])):
            picture[20:60, box] = colour
        writer.write(picture)
        if frame % 4 == 0:
            masklets.append([])
            for box in boxes:
                mask = np.zeros((80, 96), np.uint8, order='F')
                mask[20:60, box] = 1
                code = coco.encode(mask)
                masklets[-1].append(dict(size=[80, 96], counts=code['counts'].decode()))
    writer.release()
    Path(f'{stem}_manual.json').write_text(json.dumps(dict(masklet=masklets)))


def load_all(build: Callable, root: Path, work: Path) -> tuple[dict[str, dict], list[dict], list[str]]:
    """Samples by id, the record of bad samples, and what is wrong with both."""
    dataset = build(root, index_dir=work / 'indexes', **SMALL)
    set_work_dir(dataset, work)
    samples, failures = {}, []
    for row in range(len(dataset.index)):
        name = dataset.sample_id(row)
        try:
            sample = dataset.load(row, 0)  # the position decides which frames of a video, and is not that of before
        except BadSample as error:
            dataset.quarantine.note(name, error.path or dataset.path(row), error.reason)
            continue
        if name in samples:
            failures.append(f'two samples are called {name}')
        failures += [f'{name}: {each}' for each in violations(sample, dataset)]
        samples[name] = sample
    entries = [json.loads(line) for line in (work / 'bad_samples.jsonl').read_text().splitlines()]
    if len(entries) != len(dataset.quarantine.entries):
        failures.append(f'{len(entries)} bad samples are written down of {len(dataset.quarantine.entries)}')
    failures += [f'the record of {each["sample_id"]} names no file' for each in entries if not each['path']]
    return samples, entries, failures


def equal(one: dict[str, Any], other: dict[str, Any], free: tuple[str, ...]) -> bool:
    """Whether two samples are the same but for their names and what is ``free``."""
    for name in one.keys() - set(free) - {'sample_id', 'image_key', 'image_key1', 'image_key2'}:
        same = torch.equal(one[name], other[name]) if torch.is_tensor(one[name]) else one[name] == other[name]
        if not same:
            return False
    return True


def without_record(gone: set[str], entries: list[dict]) -> list[str]:
    """Samples that are not among the bad ones, and nothing that they belong to; nor one entry for each of them."""
    left, unused = set(gone), 0
    for entry in entries:
        bad = entry['sample_id'].split(' in ')[0].split('/')[-1]
        found = {name for name in gone if f'{name}_'.startswith(f'{bad}_') or bad.endswith('.tar')
                 or bad.startswith('refcoco_') and f'_{bad.split("_")[1]}_' in name}
        left -= found
        unused += not found  # its name is the odd one, or only its place in the file is known
    return sorted(left) if len(left) > unused else []


def compare(clean: dict[str, dict], samples: dict[str, dict], entries: list[dict], kind: Kind) -> Iterator[str]:
    """Samples that differ without a record, a sentence each."""
    if '*' in kind.free:
        return
    gone = {name for name in clean if name not in samples}
    for name, sample in samples.items():
        if name in clean:
            if not equal(clean[name], sample, kind.free):
                yield f'{name} is another sample than before, and not recorded'
            continue
        # Its id has changed, or its entry is there twice.
        twin = next((each for each in sorted(clean, key=gone.__contains__, reverse=True)
                     if equal(clean[each], sample, kind.free)), None)
        if twin is None and not kind.may_vanish:
            yield f'{name} is new'
        gone.discard(twin)
    if not kind.may_vanish:
        yield from (f'{name} has gone without a record' for name in without_record(gone, entries))


def one_round(number: int, seed: int, clean_root: Path, clean: dict[str, dict], only_kinds: list[str],
              only_formats: list[str], work: Path) -> Outcome:
    """Damage a copy of one format's data and compare."""
    rng = np.random.default_rng([seed, number])
    root = work / 'data'
    while True:
        shutil.rmtree(work, ignore_errors=True)
        name = only_formats[int(rng.integers(len(only_formats)))]
        damage = only_kinds[int(rng.integers(len(only_kinds)))]
        shutil.copytree(clean_root / FOLDERS[name], root / FOLDERS[name], symlinks=True)
        files = [path for path in sorted((root / FOLDERS[name]).rglob('*')) if path.is_file()]
        files = [path for path in files if not KINDS[damage].suffixes or path.suffix in KINDS[damage].suffixes]
        # One of each kind of file is as likely as another, however many there are.
        suffixes = sorted({path.suffix for path in files})
        if files:
            suffix = suffixes[int(rng.integers(len(suffixes)))]
            file = [path for path in files if path.suffix == suffix]
            file = file[int(rng.integers(len(file)))]
            what = KINDS[damage].damage(rng, root / FOLDERS[name], file)
            if what is not None:
                break
    outcome = Outcome(f'{number}: {name}, {damage}: {file.relative_to(root)}: {what}')
    try:
        samples, entries, outcome.failures = load_all(FORMATS[name], root, work)
    except (OSError, ValueError, TooManyBadSamples) as error:
        outcome.end = 'refused'
        # A folder is named as well as a file when something in it is missing.
        if not any(str(path) in str(error) for path in (root / FOLDERS[name], file)) and file.name not in str(error):
            outcome.failures.append(f'the error names no file: {type(error).__name__}: {error}')
        if type(error) in (json.JSONDecodeError, UnicodeEncodeError, UnicodeDecodeError):
            outcome.failures.append(f'a bare {type(error).__name__}: {error}')
    except Exception as error:  # whatever it is, it is what this script looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome.end = 'crashed'
        outcome.failures.append(f'{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:'
                                f'{place.lineno})')
    else:
        outcome.failures += compare(clean[name], samples, entries, KINDS[damage])
        outcome.end = 'recorded' if entries else 'equal'
    return outcome


def clean_samples(root: Path, work: Path) -> dict[str, dict]:
    """format -> id -> sample."""
    found = {}
    for name, build in FORMATS.items():
        found[name], entries, failures = load_all(build, root, work / name)
        assert found[name] and not entries and not failures, (name, entries, failures)
    return found


def run(count: int, seed: int, folder: Path, kinds: list[str] | None = None, formats: list[str] | None = None,
        only: int | None = None) -> list[Outcome]:
    """``count`` rounds, or the one with the number ``only``, in ``folder``."""
    variable = 'DUAL_LOOP_INDEX_DIR'
    outside = os.environ.pop(variable, None)
    logger = MMLogger.get_current_instance()
    level, threads = logger.level, (cv2.getNumThreads(), torch.get_num_threads())
    logger.setLevel(logging.ERROR)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        make_clean(folder / 'clean')
        clean = clean_samples(folder / 'clean', folder / 'undamaged')
        kinds, formats = kinds or sorted(KINDS), formats or list(FORMATS)
        numbers = range(count) if only is None else [only]
        return [one_round(number, seed, folder / 'clean', clean, kinds, formats, folder / 'round')
                for number in numbers]
    finally:
        logger.setLevel(level)
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
        if outside is not None:
            os.environ[variable] = outside


def main(argv=None) -> int:
    """Parse the command line and report; returns 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=500, help='rounds (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--only', type=int, metavar='NUMBER', help='this round only')
    parser.add_argument('--kinds', nargs='+', choices=sorted(KINDS), metavar='KIND', help=', '.join(sorted(KINDS)))
    parser.add_argument('--formats', nargs='+', choices=list(FORMATS), metavar='FORMAT', help=', '.join(FORMATS))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        outcomes = run(args.count, args.seed, Path(folder), args.kinds, args.formats, args.only)
    failed = [outcome for outcome in outcomes if outcome.failures]
    for outcome in outcomes if args.only is not None else failed:
        print(f'{outcome.title}: {outcome.end}')
        for failure in outcome.failures[:3]:
            print(f'    {failure.replace(str(folder), "...")}')
    ends = Counter(outcome.end for outcome in outcomes)
    print(f'{len(outcomes)} rounds, seed {args.seed}: ' + ', '.join(f'{number} {end}' for end, number in ends.items())
          + f'; {len(failed)} failed')
    print(f'Python {platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__}, OpenCV '
          f'{cv2.__version__}, NumPy {np.__version__}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
