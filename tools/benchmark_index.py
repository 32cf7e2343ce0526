"""Measure the indexes of large data sets: time, private memory, size on disk.

    python tools/benchmark_index.py                   # 1 000 000 SA-V pairs, 100 000 SA-1B files, 3 000 000 CSV rows
    python tools/benchmark_index.py --scale 0.01      # a hundredth of each
    python tools/benchmark_index.py --folder DIR --keep --cold

The data are stand-ins, which only an index can be made of: the npz files are empty, SA-1B's files have real size and
fields but random text as masks, and there are no pictures, which no index opens. Every measurement is taken in a fresh
Python process and from outside of it, by looking at its private memory (RssAnon) every few milliseconds.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow
from torch.utils.data import DataLoader, Dataset

from dual_loop.datasets import OpenImagesDataset, SA1BDataset, SAVPairDataset
from dual_loop.datasets.base import GroundedDataset
from dual_loop.datasets.index_store import VARIABLE
from dual_loop.engine.length_groups import sample_lengths
from dual_loop.stop import run_command
from dual_loop_command.command import Parser

DATASETS = dict(sav=SAVPairDataset, sa1b=SA1BDataset, openimages=OpenImagesDataset)
ITEMS = dict(sav=1_000_000, sa1b=100_000, openimages=3_000_000)  # npz files, annotation files, rows
BYTES = dict(sav=300, sa1b=60_000, openimages=350)  # of disk for an item and its share of the index, rounded up
INODES = dict(sav=1.01, sa1b=1, openimages=0)
ANNOTATIONS = 100  # of an SA-1B file
FOLDER_OF_SA1B = 11_186  # annotation files in a folder of the release
WORKERS = 4  # of the DataLoader
ROWS = 200  # that each of them reads


# Stand-ins -----------------------------------------------------------------------------------------------------------

def write_sav(root: Path, count: int) -> None:
    """Empty npz files, a thousandth of them in each folder."""
    each = max(1, count // 1000)
    for number in range(count):
        if number % each == 0:
            folder = root / f'{number // each:04d}'
            folder.mkdir(parents=True)
        os.mknod(f'{folder}/masklet_data_{number:07d}.npz')


def write_sa1b(root: Path, count: int) -> None:
    """Annotation files of the release, from a few dozen templates with ids of their own."""
    rng = np.random.default_rng(0)
    templates = [_annotation_file(rng) for _ in range(36)]
    for number in range(1, count + 1):
        folder = root / f'sa_{(number - 1) // FOLDER_OF_SA1B:06d}'
        if (number - 1) % FOLDER_OF_SA1B == 0:
            folder.mkdir(parents=True)
        first = number * 1000
        text = templates[number % len(templates)] % (number, number, *range(first, first + ANNOTATIONS))
        with open(folder / f'sa_{number}.json', 'wb') as stream:
            stream.write(text)


def _annotation_file(rng: np.random.Generator) -> bytes:
    """About 50 kB with ``%d`` for the image's id, twice, and for each annotation's id."""
    width, height = 2250, 1500
    alphabet = [chr(code) for code in range(48, 112)]  # of COCO's compressed run-length codes
    annotations = []
    for _ in range(ANNOTATIONS):
        counts = ''.join(rng.choice(alphabet, int(rng.lognormal(5.1, 0.7)) + 8))
        w, h = np.minimum(rng.lognormal(4.5, 1, 2), (width, height)).round(1)
        x, y = (rng.uniform(0, (width - w + 1, height - h + 1))).round(1)
        annotations.append(dict(
            segmentation=dict(size=[height, width], counts=counts), bbox=[x, y, w, h], area=int(0.7 * w * h),
            predicted_iou=rng.uniform(0.88, 1), stability_score=rng.uniform(0.95, 1),
            crop_box=[0.0, 0.0, float(width), float(height)], point_coords=[[float(x), float(y)]], id=None))
    image = dict(image_id=None, width=width, height=height, file_name='sa_X.jpg')
    text = json.dumps(dict(image=image, annotations=annotations))
    return text.replace('id": null', 'id": %d').replace('sa_X', 'sa_%d').encode()


def write_openimages(root: Path, count: int) -> None:
    """The tables with all columns of the real ones; about three rows an image, not side by side."""
    for folder in ('images', 'masks'):
        (root / folder / 'train').mkdir(parents=True)
    labels = [f'/m/0{number:05x}' for number in range(20_000)]
    with open(root / 'oidv7-class-descriptions.csv', 'w') as stream:
        stream.write('LabelName,DisplayName\n')
        stream.writelines(f'{label},"Thing, number {number}"\n' for number, label in enumerate(labels))
    rng = np.random.default_rng(0)
    with open(root / 'train-annotations-object-segmentation.csv', 'w') as stream:
        stream.write('MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n')
        for first in range(0, count, 100_000):
            rows = min(100_000, count - first)
            images = rng.integers(0, max(1, count // 3), rows).tolist()
            kinds = rng.integers(0, 350, rows).tolist()
            numbers = rng.random((rows, 10)).round(6)
            numbers[:, :4] = np.sort(numbers[:, :4], 1)
            for image, kind, (x1, y1, x2, y2, iou, *clicks) in zip(images, kinds, numbers.tolist()):
                name, box = f'{image * 2654435761 % 2 ** 64:016x}', f'{rng.integers(2 ** 32):08x}'
                pairs = ';'.join(f'{x} {y} {k}' for k, (x, y) in enumerate(zip(clicks[::2], clicks[1::2])))
                stream.write(f'{name}_{labels[kind][1:].replace("/", "")}_{box}.png,{name},{labels[kind]},{box},'
                             f'{x1},{x2},{y1},{y2},{iou},{pairs}\n')


WRITERS = dict(sav=write_sav, sa1b=write_sa1b, openimages=write_openimages)


def generate(folder: Path, items: dict[str, int]) -> None:
    """Write the stand-ins of ``items``, unless a run with ``--keep`` has.

    Raises:
        OSError: the disk has too little room.
    """
    finished = folder / 'items.json'
    if finished.exists() and json.loads(finished.read_bytes()) == items:
        return
    if folder.exists():
        shutil.rmtree(folder)
    size, files = (sum(each[name] * count for name, count in items.items()) for each in (BYTES, INODES))
    room = os.statvfs(folder.parent)
    if room.f_bavail * room.f_frsize < size or room.f_files and room.f_favail < files:
        raise OSError(f'{folder.parent} has room for {room.f_bavail * room.f_frsize / 1e9:.1f} GB in {room.f_favail} '
                      f'files, the stand-ins need {size / 1e9:.1f} GB in {files:.0f}: choose another --folder or a '
                      'smaller --scale')
    for name, count in items.items():
        started = time.monotonic()
        WRITERS[name](folder / name, count)
        print(f'{name}: stand-ins written in {time.monotonic() - started:.0f} s', file=sys.stderr)
    os.sync()
    finished.write_text(json.dumps(items))


def forget(folder: Path) -> None:
    """Drop the content of all files from the page cache (names and directories stay there)."""
    os.sync()
    for path, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


# In the process that is measured -------------------------------------------------------------------------------------

_held: dict[str, Any] = {}  # what stays in memory there


def construct(name: str, folder: Path) -> int:
    """Make the data set; returns its number of samples."""
    _held[name] = DATASETS[name](folder / name)
    return len(_held[name])


def lengths(name: str) -> int:
    """Ask for the lengths as the sampler does, which keeps them; returns their number."""
    _held[f'{name}-lengths'] = sample_lengths(_held[name], 'modality_length')
    return len(_held[f'{name}-lengths'])


class Rows(Dataset):
    """Rows of the indexes of data sets instead of samples, since there are no pictures."""

    def __init__(self, datasets: list[GroundedDataset]):
        self.datasets = datasets

    def __len__(self) -> int:
        return WORKERS * ROWS

    def __getitem__(self, number: int) -> int:
        for dataset in self.datasets:
            row = number * 7919 % len(dataset)
            dataset.sample_id(row), dataset.path(row)
            for column in dataset.index.values.schema.names:
                dataset.index[column][row]
        return private_memory()


def load() -> int:
    """RssAnon in bytes of the largest worker of a DataLoader over all data sets."""
    datasets = [each for each in _held.values() if isinstance(each, GroundedDataset)]
    # As in training; a spawned process would spawn its workers too if it were not told.
    return max(DataLoader(Rows(datasets), batch_size=None, num_workers=WORKERS, multiprocessing_context='fork'))


# Measuring -----------------------------------------------------------------------------------------------------------

def private_memory(process: int | str = 'self') -> int:
    """RssAnon in bytes; 0 of a process that has ended."""
    try:
        status = Path(f'/proc/{process}/status').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith('RssAnon')), 0)


def children(process: int) -> Iterator[str]:
    for file in Path(f'/proc/{process}/task').glob('*/children'):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            yield from file.read_text().split()


class FreshProcess:
    """A Python process that has only imported this module; a context manager. ``imported`` is its RssAnon."""

    def __enter__(self) -> 'FreshProcess':
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn'))
        self.process = self.pool.submit(os.getpid).result()
        self.imported = private_memory(self.process)
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown()

    def measure(self, function: Callable, *args) -> dict[str, Any]:
        """Call a function there: its ``result``, ``seconds``, and RssAnon in bytes ``before, peak, after``.

        ``workers_peak`` is the largest one of any process that it started meanwhile, 0 without any.
        """
        before = peak = private_memory(self.process)
        workers_peak = 0
        started = time.perf_counter()
        call = self.pool.submit(function, *args)
        while not wait([call], timeout=0.01).done:
            peak = max(peak, private_memory(self.process))
            workers_peak = max([workers_peak, *map(private_memory, children(self.process))])
        seconds = time.perf_counter() - started
        after = private_memory(self.process)
        return dict(result=call.result(), seconds=seconds, imported=self.imported, before=before,
                    peak=max(peak, after), after=after, workers_peak=workers_peak)


def measure(folder: Path, cold: bool) -> dict[str, Any]:
    """First start of each data set in a process of its own, then a second start of all in one process."""
    indexes = folder / 'indexes'
    shutil.rmtree(indexes, ignore_errors=True)
    os.environ[VARIABLE] = str(indexes)
    report: dict[str, Any] = dict(first={}, second={}, lengths={}, index_bytes={})
    for name in DATASETS:
        if cold:
            forget(folder / name)
        with FreshProcess() as process:
            report['first'][name] = process.measure(construct, name, folder)
        report['index_bytes'][name] = sum(file.stat().st_size for file in indexes.glob(f'{name}-*/*'))
    if cold:
        forget(indexes)
    with FreshProcess() as process:
        for name in DATASETS:
            report['second'][name] = process.measure(construct, name, folder)
        for name in DATASETS:
            report['lengths'][name] = process.measure(lengths, name)
        report['workers'] = process.measure(load)
    return report


# Report --------------------------------------------------------------------------------------------------------------

def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    samples = {name: each['result'] for name, each in report['first'].items()}
    total = sum(samples.values())
    print(', '.join(f'{key} {value}' for key, value in report['conditions'].items()))
    print(f'\n{"":12}{"items":>10}{"samples":>10}{"index":>17}{"first start":>13}{"second start":>13}{"lengths":>9}')
    print(f'{"":12}{"":>10}{"":>10}{"MB":>8}{"B/sample":>9}{"s":>13}{"s":>13}{"s":>9}')
    for title, names in {**{name: [name] for name in samples}, 'together': list(samples)}.items():
        items, count, size = (sum(each[name] for name in names) for each in
                              (report['items'], samples, report['index_bytes']))
        first, second, asked = (sum(report[step][name]['seconds'] for name in names) for step in
                                ('first', 'second', 'lengths'))
        print(f'{title:12}{items:10}{count:10}{size / 1e6:8.0f}{size / count:9.1f}'
              f'{first:13.2f}{second:13.2f}{asked:9.2f}')
    print('\nprivate memory (RssAnon) in MB; above what the process has after its imports, in bytes a sample')
    print(f'{"":34}' + ''.join(f'{title:>9}' for title in ('imports', 'before', 'peak', 'after', 'workers'))
          + f'{"peak":>10}{"after":>9}{"workers":>9}')
    for title, step in (('first start', 'first'), ('second start', 'second'), ('lengths', 'lengths')):
        for name, each in report[step].items():
            _show_memory(f'{title}, {name}', each, samples[name], each['imported' if step == 'first' else 'before'])
    workers = report['workers']
    _show_memory(f'all three, and {WORKERS} loader workers', workers | dict(workers_peak=workers['result']), total,
                 workers['imported'])


def _show_memory(title: str, each: dict[str, Any], samples: int, base: int) -> None:
    values = [each[key] for key in ('imported', 'before', 'peak', 'after', 'workers_peak')]
    above = [f'{max(0, each[key] - base) / samples:.1f}' if each[key] else '-' for key in
             ('peak', 'after', 'workers_peak')]
    print(f'{title:34}' + ''.join(f'{value / 1e6:9.1f}' if value else f'{"-":>9}' for value in values)
          + f'{above[0]:>10}{above[1]:>9}{above[2]:>9}')


def main(argv=None) -> int:
    """Parse the command line and measure; returns the exit status."""
    parser = Parser(description='Measure the indexes of large data sets.')
    parser.add_argument('--folder', type=Path, default=Path(tempfile.gettempdir()),
                        help='for the stand-ins, 8 GB at full scale (default: %(default)s)')
    parser.add_argument('--scale', type=float, default=1., help='share of the full sizes (default: %(default)s)')
    parser.add_argument('--keep', action='store_true', help='leave the stand-ins for another run')
    parser.add_argument('--cold', action='store_true', help='start without the content of the files in the page cache')
    parser.add_argument('--out', type=Path, help='write the numbers here as JSON')
    args = parser.parse_args(argv)
    items = {name: max(1, round(count * args.scale)) for name, count in ITEMS.items()}
    folder = args.folder / f'index_benchmark_{args.scale:g}'
    try:
        generate(folder, items)
        conditions = dict(cores=len(os.sched_getaffinity(0)), load=round(os.getloadavg()[0], 1),
                          cache='cold' if args.cold else 'warm', python=platform.python_version(),
                          pyarrow=pyarrow.__version__, numpy=np.__version__)
        report = dict(conditions=conditions, items=items) | measure(folder, args.cold)
        show(report)
        if args.out:
            args.out.write_text(json.dumps(report, indent=1))
    except OSError as error:
        print(f'benchmark_index: {error}', file=sys.stderr)
        return 1
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == '__main__':
    run_command(main)
